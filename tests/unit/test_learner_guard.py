"""What happens to updates that are not finite, looked at on the host and left to the device; staging and readback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.learning import CONTINUOUS, DISCRETE, batch_of, random_columns, spec_of
from safetensors.numpy import load_file

from learners.algorithms.dqn import DQNConfig
from learners.algorithms.reinforce import ReinforceConfig
from learners.algorithms.td3 import TD3Config
from learners.gradient_learner import GradientLearner
from learners.learner import StepOutput
from learners.loop import BATCH_FILE, LearnerLoop, LearnerPace
from learners.staging import PinnedRing, Staging
from learners.task import Task
from learners.weights import WeightSlot
from replay_server.batches import SampleBatch
from replay_server.errors import Diverged, Unavailable

REINFORCE = ReinforceConfig(hidden_sizes=(8,), baseline=False, softmax="sampled", negatives=2, max_skipped_updates=3)
DQN = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,), max_skipped_updates=3, lookahead_period_updates=2)
TD3 = TD3Config(hidden_sizes=(8,), actor_period_updates=1, max_skipped_updates=3)
CASES = [(DQN, DISCRETE), (TD3, CONTINUOUS)]


def learner_of(config: Any, task: Task, *, deferred: bool) -> GradientLearner:
    plain = config.make_learner(task, spec_of(config, task), seed=0, device="cpu")
    return GradientLearner(config, plain._rule, spec_of(config, task), "cpu", deferred=deferred)


def batches(config: Any, task: Task, count: int, bad: tuple[int, ...] = ()) -> list[SampleBatch]:
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        columns = random_columns(config, task, rng)
        if number in bad:
            columns["reward"][3] = np.inf
        made.append(batch_of(spec_of(config, task), columns, inserted=number))
    return made


def differing(one: GradientLearner, other: GradientLearner) -> set[str]:
    states = one.state_dict(), other.state_dict()
    return {name for name, value in states[0].items() if not torch.allclose(value, states[1][name], atol=1e-6)}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(("config", "task"), CASES)
def test_a_skipped_update_changes_nothing(config: Any, task: Task, deferred: bool) -> None:
    learner, untroubled = (learner_of(config, task, deferred=deferred) for _ in range(2))
    good = batches(config, task, 6)
    for number, batch in enumerate(batches(config, task, 6, bad=(2, 3))):
        learner.step(batch)
        if number not in (2, 3):
            untroubled.step(good[number])
    learner.drain()
    untroubled.drain()
    noisy = {"counters", "generator"}  # the target's noise of the skipped updates has been drawn
    assert learner.skipped_updates == 2 and learner.updates == 6
    assert learner.bad_batch is not None and np.isinf(learner.bad_batch.columns["reward"][3])
    if config is DQN:
        assert differing(learner, untroubled) <= noisy
    assert all(torch.isfinite(value.double()).all() for value in learner.state_dict().values())


def test_a_bad_actor_takes_the_critics_step_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config, task = TD3, CONTINUOUS
    for deferred in (False, True):
        learner = learner_of(config, task, deferred=deferred)
        first, second = batches(config, task, 2)
        learner.step(first)
        learner.drain()
        before = learner.state_dict()
        monkeypatch.setattr(
            learner._rule,
            "improve_actor",
            lambda observation, weights, diagnose, rule=learner._rule: rule.optimizers["actor"].minimise(
                rule.actor(observation).mean() * np.nan
            ),
        )
        assert learner.step(second) is None
        assert learner.drain() is None
        after = learner.state_dict()
        changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert changed == {"counters", "generator"} and learner.skipped_updates == 1


@pytest.mark.parametrize(("config", "task"), CASES)
def test_results_come_one_step_later_and_are_the_same(config: Any, task: Task) -> None:
    now, later = (learner_of(config, task, deferred=deferred) for deferred in (False, True))
    made = batches(config, task, 5, bad=(1,))
    direct = [now.step(batch) for batch in made]
    delayed = [later.step(batch) for batch in made]
    assert delayed[0] is None
    delayed = [*delayed[1:], later.drain()]
    assert later.drain() is None
    assert [output is None for output in direct] == [False, True, False, False, False]
    for ours, theirs, batch in zip(direct, delayed, made, strict=True):
        if ours is None:
            assert theirs is None
        else:
            assert isinstance(theirs, StepOutput) and theirs.keys is batch.keys
            assert theirs.priorities.dtype == np.float64 and np.allclose(ours.priorities, theirs.priorities, atol=1e-5)
    assert not differing(now, later)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_skipped_update_counts_no_actions_for_its_negatives(deferred: bool) -> None:
    """With one optimizer nothing is copied beforehand on a CPU: the step is refused before anything has changed."""
    learner = learner_of(REINFORCE, DISCRETE, deferred=deferred)
    good, bad = batches(REINFORCE, DISCRETE, 2, bad=(1,))
    learner.step(good)
    learner.drain()
    before = learner.state_dict()
    learner.step(bad)
    learner.drain()
    changed = {name for name, value in learner.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"counters", "generator"} and learner.skipped_updates == 1
    assert before["sampler.counts"].sum() == len(good)


@pytest.mark.parametrize("deferred", [False, True])
def test_too_many_in_a_row_end_the_run(deferred: bool) -> None:
    learner = learner_of(DQN, DISCRETE, deferred=deferred)
    for batch in batches(DQN, DISCRETE, 5, bad=(0, 1, 3, 4)):
        learner.step(batch)
    assert learner.drain() is None  # two, a good one, two
    [worst] = batches(DQN, DISCRETE, 1, bad=(0,))
    with pytest.raises(Diverged, match="3 times in a row"):
        learner.step(worst)
        learner.drain()
    assert learner.skipped_updates == 5 and learner.bad_batch is worst


def test_metrics_are_of_the_updates_that_were_made() -> None:
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,), diagnose_every_updates=1)
    for deferred in (False, True):
        learner = learner_of(config, DISCRETE, deferred=deferred)
        for batch in batches(config, DISCRETE, 4, bad=(1, 2)):
            learner.step(batch)
        learner.drain()
        metrics = learner.take_metrics()
        assert metrics["loss"] > 0.0 and metrics["gradient_norm_online"] > 0.0
        assert metrics["learning_rate"] == pytest.approx(1e-3) and 0.4 <= metrics["importance_beta"] < 0.41
        assert metrics["sampling_weight"] == 1.0 and all(np.isfinite(value) for value in metrics.values())
        assert learner.take_metrics() == {}


class OneBatch:
    """A replay that gives the same batch again and again."""

    def __init__(self, batch: SampleBatch) -> None:
        self._batch, self.sampled, self.updated = batch, 0, 0

    def sample(self, batch_size: int, timeout_s: float) -> SampleBatch:
        self.sampled += 1
        return self._batch

    def update_priorities(self, keys: Any, priorities: Any) -> None:
        self.updated += 1


def loop_of(learner: GradientLearner, replay: OneBatch, logs: Path | None = None, **pace: int) -> LearnerLoop:
    slot = WeightSlot()
    return LearnerLoop(
        learner, replay, slot, pace=LearnerPace(16, pace.pop("publish", 100), **pace), clock=lambda: 0.0, logs=logs
    )


@pytest.mark.parametrize("deferred", [False, True])
def test_the_batch_that_ends_the_run_is_kept(tmp_path: Path, deferred: bool) -> None:
    [bad] = batches(DQN, DISCRETE, 1, bad=(0,))
    loop = loop_of(learner_of(DQN, DISCRETE, deferred=deferred), OneBatch(bad), tmp_path)
    with pytest.raises(Diverged, match=f"3 times in a row.*its batch is in {tmp_path / BATCH_FILE}"):
        for _ in range(4):
            loop.step(0.0)
    kept = load_file(tmp_path / BATCH_FILE)
    for name, column in bad.columns.items():
        assert np.array_equal(kept[name], column)
    assert kept["key"].shape == (16, 4) and np.array_equal(kept["probability"], bad.probabilities)
    assert loop.report().skipped_updates == 3


def test_a_learner_waits_for_shards_that_are_away_and_says_so() -> None:
    class Away(OneBatch):
        def sample(self, batch_size: int, timeout_s: float) -> SampleBatch:
            if self.sampled < 2:
                self.sampled += 1
                raise Unavailable("no shard of this replay answers")
            return super().sample(batch_size, timeout_s)

    [good] = batches(DQN, DISCRETE, 1)
    loop = loop_of(learner_of(DQN, DISCRETE, deferred=False), Away(good))
    assert not loop.step(0.0) and not loop.step(0.0)
    assert loop.report().blocked_on == "shard"
    assert loop.step(0.0) and loop.report().blocked_on is None


def test_a_learner_publishes_above_versions_that_others_published() -> None:
    learner = learner_of(DQN, DISCRETE, deferred=False)
    learner.skip_versions(7)
    assert learner.snapshot().version == 8
    learner.skip_versions(3)
    assert learner.snapshot().version == 9


def test_several_updates_from_each_batch_publish_when_due() -> None:
    [good] = batches(DQN, DISCRETE, 1)
    learner = learner_of(DQN, DISCRETE, deferred=False)
    replay = OneBatch(good)
    loop = loop_of(learner, replay, updates_per_batch=4, publish=3)
    for _ in range(3):
        assert loop.step(0.0)
    assert (replay.sampled, learner.updates, replay.updated) == (3, 12, 12)
    assert loop.report().weights_version == 4


def test_a_resumed_learner_publishes_after_the_same_updates() -> None:
    [good] = batches(DQN, DISCRETE, 1)

    def published(learner: GradientLearner, turns: int) -> list[int]:
        loop, after, version = loop_of(learner, OneBatch(good), publish=4), [], 0
        for _ in range(turns):
            loop.step(0.0)
            if (now := loop.report().weights_version) != version:
                after.append(learner.updates)
                version = now
        return after

    whole, half, rest = (learner_of(DQN, DISCRETE, deferred=False) for _ in range(3))
    assert published(whole, 13) == [4, 8, 12]
    assert published(half, 6) == [4]
    rest.load_state_dict(half.state_dict())
    assert published(rest, 7) == [8, 12]
    assert rest.snapshot().version == whole.snapshot().version == 4


@pytest.mark.parametrize("saved_bytes", [16, 5056, 6000])
def test_the_noise_of_another_kind_of_device_goes_on_anew(saved_bytes: int) -> None:
    """A GPU's generator saves 16 bytes, a CPU's 5,056; one cannot read the other's."""
    saved, *learners = (learner_of(TD3, CONTINUOUS, deferred=False) for _ in range(3))
    saved.step(batches(TD3, CONTINUOUS, 1)[0])
    state = saved.state_dict()
    own = state["generator"]
    assert len(own) == 5056
    if saved_bytes != len(own):
        state["generator"] = torch.arange(saved_bytes, dtype=torch.uint8)
    begun = learners[0].state_dict()["generator"]
    for learner in learners:
        learner.load_state_dict(state)
    after = [learner.state_dict() for learner in learners]
    assert all(torch.equal(after[0][name], state[name]) for name in state if name != "generator")
    assert torch.equal(after[0]["generator"], after[1]["generator"])
    assert torch.equal(after[0]["generator"], own) == (saved_bytes == len(own))
    assert not torch.equal(after[0]["generator"], begun)


def test_draining_gives_the_last_priorities_back() -> None:
    [good] = batches(DQN, DISCRETE, 1)
    replay = OneBatch(good)
    loop = loop_of(learner_of(DQN, DISCRETE, deferred=True), replay)
    loop.step(0.0)
    assert replay.updated == 0
    loop.drain()
    assert replay.updated == 1


class Copying:
    """An event of a copy; knows which buffers may be written to."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log

    def record(self) -> None:
        self._log.append(("recorded", id(self)))

    def synchronize(self) -> None:
        self._log.append(("waited", id(self)))


def test_a_buffer_whose_copy_is_under_way_is_waited_for_before_it_is_written() -> None:
    log: list[Any] = []
    ring = PinnedRing(lambda: Copying(log), pinned=False)
    parts = [[np.full(4, number, np.uint8), np.full((2, 2), 10 + number, np.uint8)] for number in range(7)]
    copies = [ring.copy(part, torch.device("cpu")) for part in parts]  # on a CPU a copy shares its buffer's memory
    assert [copy.tolist() for copy in copies[-3:]] == [[n] * 4 + [10 + n] * 4 for n in (4, 5, 6)]
    assert len({copy.data_ptr() for copy in copies}) == 3
    waits = [event for kind, event in log if kind == "waited"]
    assert [kind for kind, _ in log] == ["waited", "recorded"] * 7
    assert waits[:3] == waits[3:6] and len(set(waits)) == 3


def test_columns_on_a_cpu_are_copies_in_one_block_whatever_the_size_of_a_batch() -> None:
    spec, weights = spec_of(DQN, DISCRETE), np.ones(16, np.float32)
    first, second = batches(DQN, DISCRETE, 2)
    first.records.flags.writeable = False
    short = SampleBatch(spec, second.records[:5], second.keys[:5], second.probabilities[:5], 16, 0)
    staging, places = Staging(spec, torch.device("cpu")), []
    for batch in (first, second, short, first):
        columns, _ = staging(batch, weights[: len(batch)])
        for name, column in batch.columns.items():
            assert np.array_equal(columns[name].numpy(), column)
        assert not np.shares_memory(columns["observation"].numpy(), batch.records)
        places.append(columns["observation"].data_ptr())
    assert places[0] == places[1] != places[2]
