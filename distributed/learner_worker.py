"""The learner inside its Ray process: a shell around the same objects the serial runtime uses.

What needs torch is imported where a learner begins: Ray loads this module in each process that a learner's handle
comes to, and the weight store's starts faster, with a third of the memory, without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from numpy.typing import NDArray

from actors.seeds import derive
from distributed.event_log import EventLog
from distributed.identity import Identity
from distributed.monitoring.exporter import served_at
from distributed.monitoring.worker_numbers import LearnerNumbers
from distributed.ray_weights import FETCHED, PUBLISHER_OPTIONS, RayWeightSink
from distributed.replay_access import ReplayAccess
from learners.weights import WeightSlot, WeightSnapshot
from replay_server.errors import CheckpointError, ReplayTimeout, Unavailable

if TYPE_CHECKING:
    from distributed.config import ExperimentConfig
    from learners.loop import LearnerReport
    from learners.replica_group import Membership
    from learners.replicas import Replicas

_TURN_SECONDS = 0.1  # longest wait of one turn; `run` overstays its time by this much at most


@dataclass(frozen=True)
class LearnerPlace:
    """Where a learner starts.

    Attributes:
        checkpoint: directory to continue from, or None; the learner's node need not see it.
        arrays: of the learner there.
        published: the policy to publish first, as it is; None: the learner's own.
        above: what the learner publishes has versions above this one.
        inserted_before: records the shards were given before the run.
        rank: which of the learner's processes it is; the first publishes and makes cuts.
        meet_seconds: how long the others may take to come.
    """

    checkpoint: Path | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    published: WeightSnapshot | None = None
    above: int = 0
    inserted_before: int = 0
    rank: int = 0
    meet_seconds: float = 0.0


@dataclass(frozen=True)
class LearnerCut:
    """The learner at the cut of a checkpoint.

    Attributes:
        report: what happened since its last one.
        error: why there is no cut, or None.
        snapshot: the policy it published.
        arrays: what `save_learner` writes.
    """

    report: LearnerReport
    error: str | None
    snapshot: WeightSnapshot | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class LearnerWorker:
    """The learner, or one of its processes: all of them get the same calls in the same order."""

    RAY_OPTIONS = PUBLISHER_OPTIONS

    def __init__(self, identity: Identity) -> None:
        self._log = EventLog(identity)
        self._log.start()
        self._numbers = LearnerNumbers()
        self._metrics = served_at(identity, self._numbers)

    def metrics_address(self) -> str | None:
        """HOST:PORT where Prometheus finds it, or None."""
        return self._metrics

    def open_meeting(self) -> str:
        """HOST:PORT where the learner's processes will find each other."""
        from learners.replica_group import MeetingPlace

        self._meeting = MeetingPlace(self._log.identity.host)
        return self._meeting.address

    def begin(
        self,
        config: ExperimentConfig,
        access: ReplayAccess,
        sink: RayWeightSink,
        place: LearnerPlace,
        logs: Path,
        meeting: str | None = None,
    ) -> None:
        """Build everything, continue from a checkpoint if there is one, and publish the first policy.

        Args:
            config: the experiment.
            access: to every shard.
            sink: where the first process publishes.
            place: where it starts.
            logs: directory for a batch that cannot be learnt from.
            meeting: as of `open_meeting`; None for the only process.
        """
        import torch

        from distributed.build import make_learner, make_learner_loop, make_spec, make_task, resolve_device
        from learners.checkpoint import restore_learner
        from learners.replica_group import ReplicaGroup
        from learners.replicas import ALONE

        torch.set_num_threads(config.learner.threads)
        task = make_task(config)
        spec = make_spec(config, task)
        self._access, self._sink = access, sink
        self._replay = access.connect(spec, transport=config.replay.transport, prefetch=config.replay.prefetch)
        device = resolve_device(config.learner.device)
        self._learner = make_learner(config, task, spec, seed=derive(config.run.seed, "learner"), device=device)
        self._replicas: Replicas = ALONE
        if meeting is not None:
            self._replicas = ReplicaGroup(_membership(config, place, meeting, self._log.identity.host), device)
            self._learner.join(self._replicas)
        self._loop = make_learner_loop(
            config,
            self._learner,
            self._replay,
            sink if place.rank == 0 else WeightSlot(),
            time.monotonic,
            logs=logs,
            inserted_before=place.inserted_before,
            replicas=self._replicas,
        )
        if place.checkpoint is not None:
            restore_learner(self._learner, place.arrays, place.checkpoint)
        self._learner.skip_versions(place.above)
        self._loop.begin(place.published)
        self._log.info("ready", device=str(device), checkpoint=place.checkpoint, shards=access.addresses)

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back at other addresses."""
        self._access.moved(shards)

    def run(self, seconds: float) -> LearnerReport:
        """Learn for a while."""
        self._loop.work(seconds, _TURN_SECONDS)
        return self._report()

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Use new observation and return moments."""
        self._learner.set_moments(moments)

    def publish(self) -> None:
        """Publish the weights as they are now."""
        self._loop.publish()

    @ray.method(concurrency_group=FETCHED, num_returns=2)
    def fetch_weights(self) -> tuple[int, WeightSnapshot]:
        """What was published last, for the weight store; answered while all else goes on."""
        return self._sink.fetched()

    def cut(self, replay_directory: str | None) -> LearnerCut:
        """Come to rest, publish, copy the learner's state and have the shards make their cuts; all else comes later.

        Args:
            replay_directory: of the shards' snapshots, inside the directory they were started with; None for shards
                that run elsewhere and keep their own.
        """
        from learners.checkpoint import learner_arrays

        self._loop.drain()
        error = _failure(self._replay.flush)
        if not self._replicas.all(error is None):
            return LearnerCut(self._report(), error)
        snapshot, arrays = self._loop.publish(), learner_arrays(self._learner)
        self._replicas.check_same(arrays.values())
        if self._replicas.rank:
            return LearnerCut(self._report(), None)
        if replay_directory is not None:
            error = _failure(partial(self._replay.begin_save, replay_directory))
        return LearnerCut(self._report(), error, snapshot, arrays)

    def _report(self) -> LearnerReport:
        report = self._loop.report()
        self._numbers.note(report, (self._sink.published, self._sink.published_bytes, self._sink.seconds))
        return report


def _failure(call: Callable[[], Any]) -> str | None:
    """Why the shards' part of a cut could not be had, or None."""
    try:
        call()
    except (CheckpointError, ReplayTimeout, Unavailable) as error:
        return str(error)
    return None


def _membership(config: ExperimentConfig, place: LearnerPlace, meeting: str, host: str) -> Membership:
    from learners.replica_group import Membership

    return Membership(
        rank=place.rank,
        count=config.learner.processes,
        meeting=meeting,
        host=host,
        meet_seconds=place.meet_seconds,
        answer_seconds=config.learner.hang_seconds,
    )
