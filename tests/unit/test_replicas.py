"""Replicas of a learner do together what one learner does with the whole batch."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch
from kit.devices import TASKS
from kit.learning import CONTINUOUS, DISCRETE, learner_of
from kit.replicas import Feed, Learnt, in_replicas, learnt, membership, part, random_batches

from learners.algorithms.bcq import BCQConfig
from learners.algorithms.behaviour_cloning import BehaviourCloningConfig
from learners.algorithms.c51 import C51Config
from learners.algorithms.ddpg import DDPGConfig
from learners.algorithms.discrete_bcq import DiscreteBCQConfig
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.algorithms.reinforce import ReinforceConfig
from learners.algorithms.slateq import SlateQConfig
from learners.algorithms.td3 import TD3Config
from learners.algorithms.wolpertinger import WolpertingerConfig
from learners.loop import LearnerLoop, LearnerPace
from learners.replica_group import MeetingPlace, ReplicaGroup
from learners.replicas import ALONE
from learners.task import Task
from learners.weights import WeightSlot
from replay_server.errors import ConfigError, Diverged, PeersLost

SMALL: dict[str, Any] = {"hidden_sizes": (16,), "diagnose_every_updates": 1}
STEEP: dict[str, Any] = {**SMALL, "max_grad_norm": 0.05, "learning_rate_decay_env_steps": 2000}
DQN = DQNConfig(target_update_tau=0.1, **SMALL)
SWEETS, CATALOGUE = TASKS[3], TASKS[4]

CASES: dict[str, tuple[Any, Task]] = {
    "dqn": (DQN, DISCRETE),
    "dqn-clipped": (DQNConfig(target_update_period_updates=5, final_learning_rate=1e-5, **STEEP), DISCRETE),
    "dqn-radam": (DQNConfig(target_update_tau=0.1, optimizer="radam", lookahead_period_updates=3, **SMALL), DISCRETE),
    "c51": (C51Config(target_update_tau=0.1, **SMALL), DISCRETE),
    "qr-dqn": (QRDQNConfig(target_update_tau=0.1, **SMALL), DISCRETE),
    "ddpg": (DDPGConfig(critic_weight_decay=1e-3, **SMALL), CONTINUOUS),
    "td3": (TD3Config(**SMALL), CONTINUOUS),
    "bcq": (BCQConfig(vae_hidden_sizes=(16,), **SMALL), CONTINUOUS),
    "discrete-bcq": (DiscreteBCQConfig(**SMALL), DISCRETE),
    # What takes no part in a softmax has a gradient of nothing but rounding, which a small epsilon blows up.
    "wolpertinger": (WolpertingerConfig(adam_epsilon=1e-4, **SMALL), CATALOGUE),
    "slateq-sarsa": (SlateQConfig(target_update_tau=0.1, target="sarsa", adam_epsilon=1e-4, **SMALL), SWEETS),
    "cloning-quantile": (BehaviourCloningConfig(reward_quantile=0.6, **SMALL), DISCRETE),
    "cloning-limit": (BehaviourCloningConfig(least_reward=0.5, **SMALL), CONTINUOUS),
    "reinforce": (ReinforceConfig(**SMALL), DISCRETE),
    "reinforce-corrected": (ReinforceConfig(correction="behaviour_head", self_normalise=True, **SMALL), DISCRETE),
    "reinforce-sampled": (ReinforceConfig(softmax="sampled", negatives=2, baseline=False, **SMALL), DISCRETE),
}

LONG = ("dqn", "c51", "td3", "reinforce-corrected")


def check_alike(one: Learnt, replicas: list[Any], *, but: tuple[str, ...] = ()) -> None:
    """Replicas hold the same to the last bit, and up to rounding what one learner made of the whole batches."""
    for other in replicas:
        if isinstance(other, Exception):
            raise other
        assert other.skipped == one.skipped
        assert all(np.array_equal(value, replicas[0].state[name]) for name, value in other.state.items())
    for name, value in one.state.items():
        if name not in but:
            np.testing.assert_allclose(replicas[0].state[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    for whole, parts in zip(one.priorities, zip(*(r.priorities for r in replicas), strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)
    for whole, parts in zip(one.metrics, zip(*(r.metrics for r in replicas), strict=True), strict=True):
        for name in ("loss", "learning_rate", "importance_beta", "sampling_weight") if "loss" in whole else ():
            assert np.mean([figures[name] for figures in parts]) == pytest.approx(whole[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("name", CASES)
def test_two_replicas_make_the_updates_of_one_learner_with_the_whole_batch(name: str) -> None:
    config, task = CASES[name]
    batches = random_batches(config, task, 50 if name in LONG else 12)
    replicas = in_replicas(2, lambda group: learnt(config, task, batches, group))
    # Shuffles of half a batch take fewer random numbers than those of a whole one.
    check_alike(learnt(config, task, batches), replicas, but=("generator",) if getattr(config, "baseline", 0) else ())


@pytest.mark.parametrize(("config", "task"), [(DQN, DISCRETE), (CASES["td3"][0], CONTINUOUS)])
def test_so_they_do_where_the_device_decides_what_is_kept_and_with_four(config: Any, task: Task) -> None:
    batches = random_batches(config, task, 20)
    batches[7].columns["reward"][13] = np.nan
    one = learnt(config, task, batches, deferred=True)
    assert one.skipped == 1
    check_alike(one, in_replicas(4, lambda group: learnt(config, task, batches, group, deferred=True)))


@pytest.mark.parametrize("name", ["dqn", "td3", "bcq", "reinforce-sampled"])
def test_an_update_that_is_not_finite_in_one_is_skipped_by_all(name: str) -> None:
    config, task = CASES[name]
    batches = random_batches(config, task, 10)
    batches[4].columns["reward"][12] = np.inf  # in the second replica's part
    one = learnt(config, task, batches)
    assert one.skipped == 1
    check_alike(one, in_replicas(2, lambda group: learnt(config, task, batches, group)))


@pytest.mark.parametrize("deferred", [False, True])
def test_priorities_that_are_not_finite_in_one_take_the_update_back_in_all(
    monkeypatch: pytest.MonkeyPatch, deferred: bool
) -> None:
    config, task = CASES["td3"]
    batches = random_batches(config, task, 4)
    calls = itertools.count()
    plain = TD3Config.make_learner

    def broken(self: TD3Config, task: Task, spec: Any, **settings: Any) -> Any:
        learner = plain(self, task, spec, **settings)
        update, first = learner._rule.update, next(calls) == 0

        def with_errors(t: Any, weights: Any, *, number: int, diagnose: bool) -> Any:
            updated = update(t, weights, number=number, diagnose=diagnose)
            if first and number == 2:  # when critics and actor have stepped
                updated.errors[0] = torch.inf
            return updated

        learner._rule.update = with_errors
        return learner

    monkeypatch.setattr(TD3Config, "make_learner", broken)
    found = in_replicas(2, lambda group: learnt(config, task, batches, group, deferred=deferred))
    assert [r.skipped for r in found] == [1, 1] and [len(r.priorities) for r in found] == [3, 3]


def test_steps_of_the_value_network_take_as_many_records_of_each() -> None:
    config = ReinforceConfig(value_minibatch_size=6, **SMALL)
    batches = random_batches(config, DISCRETE, 5)
    found = in_replicas(2, lambda group: learnt(config, DISCRETE, batches, group))
    assert found[0].skipped == 0
    assert all(np.array_equal(value, found[1].state[name]) for name, value in found[0].state.items())
    odd = ReinforceConfig(value_minibatch_size=7, **SMALL)
    [error, _] = in_replicas(2, lambda group: learner_of(odd, DISCRETE).join(group))
    assert isinstance(error, ConfigError)
    assert "algorithm.value_minibatch_size (7) must be a multiple of learner.processes (2)" in str(error)


def test_replicas_that_differ_end_at_the_next_published_version() -> None:
    def work(group: ReplicaGroup) -> None:
        learner = learner_of(DQN, DISCRETE, seed=group.rank)
        learner.join(group)
        replay: Any = Feed(iter(()), np.random.default_rng(0), 0.0)
        LearnerLoop(learner, replay, WeightSlot(), pace=LearnerPace(8, 10), clock=lambda: 0.0, replicas=group).publish()

    for error in in_replicas(2, work):
        assert isinstance(error, Diverged) and "learner's processes do not hold the same weights" in str(error)


def test_the_first_replica_s_clock_ends_the_work_of_all() -> None:
    batches = random_batches(DQN, DISCRETE, 40)

    def work(group: ReplicaGroup) -> int:
        learner = learner_of(DQN, DISCRETE)
        learner.join(group)
        replay: Any = Feed((part(b, group.rank, 2) for b in batches), np.random.default_rng(group.rank), 0.3)
        ticks = itertools.count() if group.rank == 0 else itertools.repeat(0)
        pace = LearnerPace(8, 10)
        loop = LearnerLoop(learner, replay, WeightSlot(), pace=pace, clock=lambda: float(next(ticks)), replicas=group)
        loop.work(40.0, 0.0)
        return loop.report().updates

    first, second = in_replicas(2, work)
    assert first == second and 1 <= first < 40


def test_what_replicas_ask_of_each_other() -> None:
    def work(group: ReplicaGroup) -> None:
        rank = group.rank
        [batch] = random_batches(DQN, DISCRETE, 1)
        agreed = group.agree(part(batch, rank, 3), more=rank != 1)  # whose wish does not count
        assert agreed.more and agreed.batch is not None
        assert agreed.batch.least_probability == batch.probabilities.min() and agreed.batch.inserted == batch.inserted
        assert group.agree(None if rank == 2 else part(batch, rank, 3), more=rank > 0) == (None, False)
        gradient = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
        assert group.average(gradient, torch.tensor(float(rank))) == 1.0
        assert gradient.tolist() == [2.0, 4.0, 6.0]
        rows = torch.arange(4).view(2, 2) + 10 * rank
        assert torch.equal(group.mine(group.gather(rows)), rows) and len(group.gather(rows)) == 6
        assert group.gather(rows)[:, 0].tolist() == [0, 2, 10, 12, 20, 22]
        assert not group.all(rank != 1) and group.all(True)
        assert not group.everywhere(torch.tensor(rank != 2)) and group.everywhere(torch.tensor(True))
        group.check_same([np.arange(3), np.ones((2, 2))])
        with pytest.raises(Diverged):
            group.check_same([np.arange(3) + (rank == 2)])

    assert in_replicas(3, work) == [None, None, None]
    assert ALONE.agree(None, more=True) == (None, True) and ALONE.all(False) is False


def test_one_that_ends_or_says_nothing_is_noticed_by_the_others_in_time() -> None:
    over = threading.Event()

    def silent(group: ReplicaGroup) -> Any:
        if group.rank == 1:
            over.wait(20.0)
            return None
        try:
            return group.all(True)
        finally:
            over.set()

    error, _ = in_replicas(2, silent, seconds=1.0)
    assert isinstance(error, PeersLost) and "process 0 of the learner's 2 has lost the others" in str(error)

    def ends(group: ReplicaGroup) -> Any:
        return group.all(True) and (group.rank == 1 or group.agree(None, more=True))

    error, _ = in_replicas(2, ends)
    assert isinstance(error, PeersLost) and len(str(error).splitlines()) == 1


def test_one_that_never_comes_is_waited_for_no_longer_than_said() -> None:
    meeting = MeetingPlace("127.0.0.1")
    with pytest.raises(PeersLost):
        ReplicaGroup(membership(meeting, 0, 2, seconds=1.0), "cpu")


def test_replicas_of_different_devices_are_refused() -> None:
    meeting, errors = MeetingPlace("127.0.0.1"), []

    def take_part(rank: int, device: str) -> None:
        with pytest.raises(ConfigError, match="learner.device: the learner's 2 processes found cpu, meta") as caught:
            ReplicaGroup(membership(meeting, rank, 2), device)
        errors.append(caught.value)

    threads = [threading.Thread(target=take_part, args=place) for place in enumerate(("cpu", "meta"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40.0)
    assert len(errors) == 2
