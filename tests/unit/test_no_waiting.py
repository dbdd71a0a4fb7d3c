"""No update waits for its device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.devices import algorithm_configs, tasks_of, update_without_values, variants
from kit.learning import DISCRETE, batch_of, random_columns, spec_of

from learners.algorithm import AlgorithmConfig
from learners.algorithms.dqn import DQNConfig
from learners.value_learning import ValueRule

CONFIGS = algorithm_configs()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_update_needs_no_value_on_the_host(name: str) -> None:
    base, *others = variants(CONFIGS[name])
    assert tasks_of(base)
    for task in tasks_of(base):
        update_without_values(base, task)
    for config in others:
        for task in tasks_of(config)[:1]:
            update_without_values(config, task, first=2)


def test_the_proof_finds_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    config, update = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,)), ValueRule.update
    for wait in (
        lambda t: t["reward"].max().item(),
        lambda t: t["reward"][t["reward"] > 0.0],
        lambda t: t["reward"].cpu(),
    ):
        monkeypatch.setattr(
            ValueRule, "update", lambda self, t, *a, wait=wait, **k: (wait(t), update(self, t, *a, **k))[1]
        )
        with pytest.raises((RuntimeError, NotImplementedError)):
            update_without_values(config, DISCRETE)


def test_every_algorithm_is_covered() -> None:
    assert {"dqn", "c51", "qr_dqn", "ddpg", "td3", "reinforce"} <= CONFIGS.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: watches the driver for waits")
@pytest.mark.parametrize("name", CONFIGS)
def test_no_step_waits_for_a_gpu(name: str) -> None:
    config: AlgorithmConfig = next(iter(variants(CONFIGS[name])))
    task = tasks_of(config)[0]
    spec, rng = spec_of(config, task), np.random.default_rng(0)
    learner = config.make_learner(task, spec, seed=0, device="cuda")  # type: ignore[attr-defined]
    batches = [batch_of(spec, random_columns(config, task, rng)) for _ in range(6)]
    learner.step(batches[0])  # kernels are chosen and memory is taken once
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in batches:
            learner.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.drain() is not None or name == "reinforce"
