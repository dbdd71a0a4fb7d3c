"""Keeps the learner going: collects its reports, starts it again from a checkpoint when it dies, hangs or fails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distributed.config import ExperimentConfig
from distributed.cut_off import CutOff
from distributed.event_log import EventLog
from distributed.learner_group import LearnerProcesses, merged_cut, merged_report
from distributed.learner_worker import LearnerCut, LearnerPlace, LearnerWorker
from distributed.processes import Processes, Role
from distributed.ray_weights import RayWeightSink
from distributed.replay_access import ReplayAccess
from distributed.run_directory import RunDirectory
from distributed.runtime import Casualties, Origin
from distributed.seat import Seat
from distributed.worker_state import WorkerState
from learners.checkpoint import read_learner
from learners.loop import LearnerReport
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError, ConfigError, Diverged, HeadraceError, Unavailable

_NOTHING = LearnerReport(0, 0, {}, 0.0, None)


class LearnerSupervisor:
    """The learner with one call in flight, of each of its processes where it has several.

    One that dies, hangs or raises is replaced by a new one, in all of its processes: at once the first time, after
    growing pauses when it fails again before it has worked for a while; then the run ends. Actors and shards go on
    meanwhile. The new one continues from the newest complete checkpoint of the run. With none it begins anew: the
    published weights are only the policy's, without critics, targets and the state of optimizers, and what the replay
    holds is learnt from again in no more updates than it took. What it publishes has versions above all that were
    published.

    Args:
        config: the experiment.
        processes: runs the learner.
        sink: where it publishes.
        origin: where the run starts.
        run: where checkpoints lie.
        log: the driver's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        processes: Processes,
        sink: RayWeightSink,
        origin: Origin,
        run: RunDirectory,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._processes = LearnerProcesses(processes, config.learner.processes)
        self._sink = sink
        self._origin = origin
        self._run = run
        self._clock = clock
        self._seat = Seat("the learner", log.identity.of(Role.LEARNER), self._processes, log, clock)
        self._cut_off = CutOff(config.replay.unreachable_seconds, clock)
        self._access: ReplayAccess | None = None
        self._inserted_before = 0
        self._version = 0 if origin.snapshot is None else origin.snapshot.version
        self._moments: dict[str, NDArray[Any]] | None = None
        self._beginning = True
        self._down_since: float | None = None
        self._shards_down: Collection[int] = ()
        self._notices: list[str] = []
        self._cut_wanted: tuple[str | None] | None = None
        self._cutting = False
        self._cut: LearnerCut | None = None
        self._seat.fill(LearnerWorker)

    def start(self, access: ReplayAccess, inserted_before: int) -> None:
        """Have it build everything and publish the first policy.

        Args:
            access: to every shard.
            inserted_before: records the shards were given before the run.
        """
        self._access, self._inserted_before = access, inserted_before
        self._begin(self._place(self._origin.checkpoint, self._origin.snapshot, 0))

    def wait_ready(self) -> None:
        """Wait until it has; it begins to learn with `learn_on`.

        Raises:
            WorkerDied: not in time.
            HeadraceError: what it raised.
        """
        self._processes.get(self._seat.call, self._processes.room_seconds, "the learner")
        self._beginning = False

    def learn_on(self, slice_seconds: float) -> None:
        """Have it learn for so long and report."""
        self._slice_seconds = slice_seconds
        self._seat.issue(self._seat.handle.ask("run", slice_seconds), self._config.learner.hang_seconds)

    def pending(self) -> list[Any]:
        """Calls in flight; those of its processes that have ended are looked at when all have."""
        return [] if self._seat.call is None else self._processes.waiting(self._seat.call)

    def collect(self) -> tuple[LearnerReport, ...]:
        """The report that has come in, if one has; it is told to go on.

        Raises:
            WorkerDied: it has failed too often in a row.
            Unavailable: no shard was in its reach for too long.
            ConfigError, CheckpointError, Diverged: what another process would do no better.
        """
        seat = self._seat
        if seat.vacant:
            if seat.due:
                self._begin_again()
            return ()
        try:
            if not seat.answered():
                return ()
            answer = seat.answer()
        except (ConfigError, CheckpointError, Diverged):
            raise
        except HeadraceError as error:
            self._down(error)
            return ()
        if self._beginning:
            self._back()
            return ()
        if self._cutting:
            self._cut, self._cutting = merged_cut(answer), False
            report = self._cut.report
        else:
            report = merged_report(answer)
        self._note(report)
        self._go_on()
        return (report,)

    @property
    def version(self) -> int:
        """The newest that it has told of."""
        return self._version

    @property
    def learning(self) -> bool:
        """It is there and has begun."""
        return not self._seat.vacant and not self._beginning

    def request_cut(self, replay_directory: str | None) -> None:
        """Have it make the cut of a checkpoint when it has finished what it works on; it learns on afterwards.

        Args:
            replay_directory: as of `LearnerWorker.cut`.
        """
        self._cut_wanted = (replay_directory,)

    def take_cut(self) -> LearnerCut | None:
        """The cut that was requested, once it is made.

        Raises:
            CheckpointError: it could not be.
        """
        cut, self._cut = self._cut, None
        if cut is not None and cut.error is not None:
            raise CheckpointError(cut.error)
        return cut

    def set_moments(self, moments: Mapping[str, NDArray[Any]]) -> None:
        """Hand merged moments to it; a new process gets the newest."""
        self._moments = dict(moments)
        if self.learning:
            self._seat.handle.ask("set_moments", self._moments)

    def moved(self, shards: Mapping[int, str]) -> None:
        """Shards came back at other addresses."""
        if not self._seat.vacant:
            self._seat.handle.ask("moved", shards)

    def wait_for(self, shards: Collection[int]) -> None:
        """These shards are being started again, however long that takes: without them it does not count as cut off."""
        self._shards_down = shards

    def publish_again(self) -> None:
        """The weight store is empty: publish what there is."""
        if self.learning:
            self._seat.handle.ask("publish")

    def casualties(self) -> Casualties:
        """Restarts so far."""
        return Casualties(self._seat.restarts)

    def workers(self) -> tuple[WorkerState, ...]:
        """How it is."""
        return (self._seat.state("begins" if self._beginning else "learns"),)

    def take_notices(self) -> tuple[str, ...]:
        """What a person should be told since the last call."""
        notices, self._notices = tuple(self._notices), []
        return notices

    def stop(self) -> None:
        """End it."""
        self._seat.stop()

    def _go_on(self) -> None:
        """To the cut where one is wanted, else to the next slice of learning."""
        if self._cut_wanted is None:
            self.learn_on(self._slice_seconds)
            return
        (directory,), self._cut_wanted, self._cutting = self._cut_wanted, None, True
        self._seat.issue(self._seat.handle.ask("cut", directory), self._config.learner.hang_seconds)

    def _begin(self, place: LearnerPlace) -> None:
        call = self._seat.handle.begin(self._config, self._access, self._sink, place, self._run.logs)
        self._beginning = True
        self._seat.issue(call, self._processes.room_seconds)

    def _begin_again(self) -> None:
        newest = self._run.complete_checkpoints()[-1:]
        checkpoint = newest[0] if newest else self._origin.checkpoint
        self._seat.fill(LearnerWorker)
        self._begin(self._place(checkpoint, None, self._sink.newest_version(self._version)))

    def _place(self, checkpoint: Path | None, published: WeightSnapshot | None, above: int) -> LearnerPlace:
        arrays = {} if checkpoint is None else read_learner(checkpoint)
        meet_seconds = self._processes.room_seconds
        return LearnerPlace(checkpoint, arrays, published, above, self._inserted_before, meet_seconds=meet_seconds)

    def _down(self, error: HeadraceError) -> None:
        if self._down_since is None:
            self._down_since = self._clock()
        if self._cutting:
            self._cutting, self._cut = False, LearnerCut(_NOTHING, f"the learner: {error}")
        if isinstance(error, Unavailable):
            self._missed()
        self._seat.vacate(error)

    def _back(self) -> None:
        self._beginning = False
        if self._moments is not None:
            self._seat.handle.ask("set_moments", self._moments)
        seconds = 0.0 if self._down_since is None else self._clock() - self._down_since
        self._down_since = None
        self._notices.append(f"the learner is back after {seconds:.1f} s")
        self._go_on()

    def _note(self, report: LearnerReport) -> None:
        self._version = max(self._version, report.weights_version)
        if report.blocked_on == "shard":
            self._missed()
        else:
            self._cut_off.reached()

    def _missed(self) -> None:
        assert self._access is not None
        if self._shards_down:
            self._cut_off.reached()
            return
        self._cut_off.missed(f"the learner has reached no replay shard of {', '.join(self._access.addresses)}")
