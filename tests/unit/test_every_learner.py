"""What holds for every algorithm that ships, with each of its switches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.devices import algorithm_configs, tasks_of, variants
from kit.learning import batch_of, learner_of, random_columns, spec_of

from learners.algorithm import AlgorithmConfig
from learners.task import Task
from replay_server.batches import SampleBatch

CONFIGS = algorithm_configs()
METRICS = (Path(__file__).parents[2] / "docs/metrics.md").read_text()


def measured(config: AlgorithmConfig) -> AlgorithmConfig:
    """With diagnostics of every update."""
    return msgspec.structs.replace(config, diagnose_every_updates=1)


def batches(config: AlgorithmConfig, task: Task, count: int, size: int = 16) -> list[SampleBatch]:
    rng, spec, made = np.random.default_rng(0), spec_of(config, task), []
    for number in range(count):
        probabilities = rng.uniform(0.2, 1.8, size) / size
        made.append(batch_of(spec, random_columns(config, task, rng, size), probabilities, inserted=50 * number))
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_state_continues_bit_for_bit_metrics_included(name: str) -> None:
    config = measured(next(iter(variants(CONFIGS[name]))))
    for task in tasks_of(config):
        first, second, made = learner_of(config, task), learner_of(config, task, seed=9), batches(config, task, 8)
        for batch in made[:4]:
            first.step(batch)
        first.take_metrics()
        second.load_state_dict(first.state_dict())
        for batch in made[4:]:  # one by one: what one update measures another must not hide
            outputs = first.step(batch), second.step(batch)
            if outputs[0] is not None:
                assert np.array_equal(outputs[0].priorities, outputs[1].priorities)
            assert first.take_metrics() == second.take_metrics()
        states = first.state_dict(), second.state_dict()
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        assert np.array_equal(first.snapshot().blob, second.snapshot().blob)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_metric_is_finite_and_defined(name: str) -> None:
    optimizers = "`gradient_norm_NAME`"
    assert optimizers in METRICS
    cases = [(config, tasks_of(config)[:1]) for config in map(measured, variants(CONFIGS[name]))]
    for config, task in [(config, task) for config, tasks in cases for task in tasks]:
        learner, [batch] = learner_of(config, task), batches(config, task, 1)
        learner.step(batch)
        kept = {key: [float(value) for value in values] for key, values in learner._diagnostics.items()}
        assert learner.skipped_updates == 0 and all(np.isfinite(values).all() for values in kept.values())
        names = {key for key in learner.take_metrics() if not key.startswith("gradient_norm_")}
        assert not [key for key in names if f"`{key}`" not in METRICS]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_of_one_record_without_rewards(name: str) -> None:
    config = measured(next(iter(variants(CONFIGS[name]))))
    task = tasks_of(config)[0]
    columns = random_columns(config, task, np.random.default_rng(0), size=1)
    columns["reward"][:] = 0.0
    learner = learner_of(config, task)
    learner.step(batch_of(spec_of(config, task), columns))
    assert learner.skipped_updates == 0
    assert all(np.isfinite([float(v) for v in values]).all() for values in learner._diagnostics.values())


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"behaviour_cloning"}))  # which only compares rewards
def test_a_reward_that_is_not_a_number_is_skipped(name: str) -> None:
    config = next(iter(variants(CONFIGS[name])))
    task = tasks_of(config)[0]
    columns = random_columns(config, task, np.random.default_rng(0))
    columns["reward"][2] = np.nan
    learner = learner_of(config, task)
    assert learner.step(batch_of(spec_of(config, task), columns)) is None
    assert learner.skipped_updates == 1


@pytest.mark.parametrize(
    ("name", "idle", "beside"),
    [
        ("dqn", {"temperature": 0.5}, "exploration epsilon"),
        ("c51", {"epsilon_base": 0.1, "exploration": "boltzmann"}, "exploration boltzmann"),
        ("qr_dqn", {"epsilon_anneal_env_steps": 0, "exploration": "boltzmann"}, "exploration boltzmann"),
        ("dqn", {"item_hidden_size": 8}, "action_values heads"),
        ("dqn", {"huber_delta": 0.5, "loss": "mse"}, "loss mse"),
        ("dqn", {"adam_epsilon": 1e-4, "optimizer": "sgd"}, "optimizer sgd"),
        ("dqn", {"lookahead_alpha": 0.9}, "lookahead_period_updates"),
        ("td3", {"ou_theta": 0.5}, "noise gaussian"),
        ("dqn", {"encoder_size": 32, "torso": "mlp"}, "torso mlp"),
        ("dqn", {"encoder_size": 32, "torso": "nature_cnn"}, "torso nature_cnn"),
        ("td3", {"smoothing_clip": 0.2, "smoothing_sigma": 0.0}, "smoothing_sigma 0"),
        ("wolpertinger", {"smoothing_clip": 0.2, "smoothing_sigma": 0.0}, "smoothing_sigma 0"),
        ("slateq", {"sarsa_epsilon": 0.5}, "target max"),
        ("slateq", {"choice_learning_rate": 0.5, "choice": "given"}, "choice given"),
        ("reinforce", {"value_learning_rate": 0.5, "baseline": False}, "baseline"),
        ("reinforce", {"value_minibatches": 3, "baseline": False}, "baseline"),
        ("reinforce", {"value_minibatch_size": 64, "baseline": False}, "baseline"),
        ("reinforce", {"negatives": 64}, "softmax full"),
        ("reinforce", {"weight_cap": 2.0}, "correction none"),
        ("reinforce", {"behaviour_learning_rate": 1.0, "correction": "stored"}, "correction stored"),
        ("reinforce", {"negative_exponent": 0.5}, "softmax full"),
        ("reinforce", {"advantage_epsilon": 0.1, "normalise_advantages": False}, "normalise_advantages"),
    ],
)
def test_a_setting_that_nobody_reads_is_refused(name: str, idle: dict[str, Any], beside: str) -> None:
    base = next(iter(variants(CONFIGS[name])))
    field = next(iter(idle))
    with pytest.raises(ValueError, match=rf"{field} does nothing with(out)? {beside}"):
        msgspec.structs.replace(base, **idle)
