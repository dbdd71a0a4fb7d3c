"""The driver of a run: counts, schedules evaluations and checkpoints, decides when to stop, writes what is left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from actors.normalisation import RunMoments
from actors.seeds import SeedFamily, derive
from distributed.checkpoints import Checkpoints
from distributed.config import ExperimentConfig
from distributed.event_log import EventLog
from distributed.figures import figures, run_facts
from distributed.logged_data import LoggedData, find_log
from distributed.manifest import read_manifest
from distributed.metrics import MetricsWriter
from distributed.milestones import Milestones
from distributed.monitoring.run_numbers import RunExporter
from distributed.progress import LiveView
from distributed.remote_checkpoints import RemoteCheckpoints
from distributed.run_directory import RunDirectory, replay_snapshots
from distributed.run_status import RunStatus
from distributed.runtime import Casualties, Evaluation, Origin, Progress, Runtime
from distributed.stop_signal import StopSignal
from distributed.tally import Tally, bound_by
from learners.checkpoint import load_snapshot
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError, ConfigError

BEST_FILE = "best.safetensors"
POLICY_FILE = "policy.safetensors"
_LAST_TRIES = 3


@dataclass(frozen=True)
class Best:
    """The policy with the highest periodic evaluation so far; the later one of equals."""

    mean: float
    env_steps: int
    snapshot: WeightSnapshot


@dataclass(frozen=True)
class Clock:
    """The two clocks of a run: monotonic seconds, and seconds since the epoch for TensorBoard."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


class Driver:
    """Drives a runtime from start, or from a checkpoint, to the end of the run."""

    def __init__(
        self, config: ExperimentConfig, runtime: Runtime, run: RunDirectory, view: LiveView, clock: Clock
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._run = run
        self._view = view
        self._clock = clock
        self._best: Best | None = None
        self._newest: WeightSnapshot | None = None
        self._earlier_seconds = 0.0
        self._earlier = Casualties()
        self._row: dict[str, Any] = {}
        self._evaluation: dict[str, Any] | None = None
        self._evaluations: list[dict[str, Any]] = []
        self._asked: dict[int, float] = {}
        self._moments = RunMoments()
        url = config.run.checkpoint_url
        copies = None if url is None else RemoteCheckpoints(url)
        self._checkpoints = Checkpoints(
            runtime, run, config.run.keep_checkpoints, clock.monotonic, self._notice, copies
        )

    def train(self, stop: StopSignal, checkpoint: Path | None) -> dict[str, Any]:
        """Run until a stop condition holds; returns the content of `result.json`, which it also writes.

        Raises:
            CheckpointError: the last checkpoint was given up, again and again; `result.json` is written.
        """
        facts = run_facts(self._config, self._run)
        self._identity = self._run.identity(prometheus=self._config.run.prometheus, loopback=self._config.one_machine)
        self._events = EventLog(self._identity)
        self._events.start(checkpoint=checkpoint, **facts)
        try:
            with RunStatus(self._run, self._runtime, facts) as self._status:
                result = self._train(stop, checkpoint)
        except BaseException as error:
            self._events.error("failed", error)
            raise
        finally:
            self._events.close()
        return result

    def _train(self, stop: StopSignal, checkpoint: Path | None) -> dict[str, Any]:
        begin = self._clock.monotonic()
        self._view.say("starting")
        self._exporter: RunExporter | None = None
        try:
            keep_rows = self._start(checkpoint)
            if self._identity.prometheus:
                self._exporter = RunExporter(self._identity, self._status)
            self._began = self._clock.monotonic()
            self._milestones = Milestones(self._events, len(self._evaluations))
            self._events.info("training", start_up_seconds=self._began - begin)
            with stop.deferred(), MetricsWriter(self._run.metrics, self._run.tensorboard, keep_rows) as self._writer:
                self._status.enter("training")
                reason, scheduled = self._loop(stop)
                seconds = self._seconds()
                self._status.enter("checkpointing")
                self._view.say("writing the final checkpoint")
                failure = self._checkpoint_last(scheduled, judge=reason != "interrupt")
                self._milestones.note(self._tally.env_steps, self._evaluations, self._checkpoints)
                self._look()
            result = self._result(reason, seconds, self._began - begin)
            if failure is not None:
                self._end_without_checkpoint(result, failure)
            try:
                if reason != "interrupt":
                    self._status.enter("evaluating")
                    result["evaluation"] = self._evaluate_best()
            except KeyboardInterrupt:
                self._view.say("the final evaluation was interrupted")
            finally:
                self._run.write_result(result)
                self._milestones.end(result)
                self._status.enter("interrupted" if stop.requested else "done")
        finally:
            if self._exporter is not None:
                self._exporter.close()
            self._runtime.stop()
            self._checkpoints.close(at_once=stop.requested)
        return result

    @property
    def best_snapshot(self) -> WeightSnapshot:
        """The policy the run ends with: the best by periodic evaluation, or the newest when there was none."""
        assert self._newest is not None
        return self._best.snapshot if self._best is not None else self._newest

    def _start(self, checkpoint: Path | None) -> int:
        count = self._config.actors.count
        if checkpoint is None:
            self._tally = Tally([0] * count)
            self._log = find_log(self._config)
            if self._log.files:
                self._view.say(f"replay starts with {self._log.records:,} logged records")
            self._runtime.start(Origin(None, None, (0,) * count, 0, self._log))
            return 0
        manifest = read_manifest(checkpoint)
        self._refuse_other_shards(checkpoint, manifest["shards"])
        if (count == 0) != (not manifest["actor_env_steps"]):
            raise ConfigError(
                f"actors.count is {count}, the checkpoint {checkpoint} has {len(manifest['actor_env_steps'])}; a run's "
                "clock counts updates without actors and transitions with them: start a new run with replay.init_from"
            )
        self._run.discard_after(checkpoint)
        steps = _share(sum(manifest["actor_env_steps"]), count, manifest["actor_env_steps"])
        self._tally = Tally(steps, manifest["totals"], manifest["seconds"])
        self._checkpoints.begun = manifest["barriers"]
        self._earlier_seconds = manifest["seconds"]
        self._earlier = Casualties(manifest["restarts"], manifest["lost_transitions"])
        self._moments = RunMoments.from_state(manifest["moments"])
        self._evaluation = manifest["evaluation"]
        self._evaluations = manifest["periodic_evaluations"]
        self._newest = load_snapshot(checkpoint / POLICY_FILE, manifest["policy_version"])
        if (best := manifest["best"]) is not None:
            snapshot = load_snapshot(checkpoint / BEST_FILE, best["version"])
            self._best = Best(best["mean"], best["env_steps"], snapshot)
        self._log = LoggedData((), manifest["logged_records"])
        self._runtime.start(Origin(checkpoint, self._newest, tuple(steps), manifest["barriers"], self._log))
        rows: int = manifest["metrics_rows"]
        return rows

    def _refuse_other_shards(self, checkpoint: Path, before: int) -> None:
        replay = self._config.replay
        if self._config.runtime == "serial" and replay.shards != before:
            raise ConfigError(
                f"replay.shards is {replay.shards}, the checkpoint {checkpoint} has {before}; runtime serial goes on "
                f"bit for bit, so with as many: set it to {before}, or runtime to ray"
            )
        if not replay.addresses and not replay_snapshots(checkpoint):
            raise ConfigError(
                f"the checkpoint {checkpoint} has no replay, because its shards ran elsewhere: set replay.addresses"
            )

    def _loop(self, stop: StopSignal) -> tuple[str, bool]:
        """Returns why the run stops, and whether a checkpoint was due at that very moment."""
        run, evaluation = self._config.run, self._config.evaluation
        now = self._tally.env_steps
        while True:
            before = now
            progress = self._runtime.advance()
            self._take_in(progress)
            now = self._tally.env_steps
            if _crossed(before, now, evaluation.every_env_steps):
                self._asked[now] = self._seconds()
                self._runtime.request_evaluation(now)
            for finished in self._runtime.finished_evaluations():
                self._judge(finished)
            due = _crossed(before, now, run.checkpoint_every_env_steps)
            if reason := self._stop_reason(stop):
                return reason, due
            self._checkpoints.advance(now, due)
            if not self._take_cut() and _crossed(before, now, run.metrics_every_env_steps):
                self._write_row()
            self._view.update(self._tally, self._row, self._seconds())
            self._milestones.note(self._tally.env_steps, self._evaluations, self._checkpoints)
            if self._status.due:
                self._look()

    def _take_in(self, progress: Progress) -> None:
        self._tally.add(progress)
        self._status.take_in(progress)
        self._merge_moments([report.moments for report in progress.actors.values()])
        for notice in progress.notices:
            self._notice(notice)

    def _notice(self, text: str) -> None:
        """To the person before the screen, and to whoever reads the log."""
        self._view.say(text)
        self._events.warning("notice", text=text)

    def _stop_reason(self, stop: StopSignal) -> str | None:
        run = self._config.run
        if stop.requested:
            return "interrupt"
        if self._tally.env_steps >= run.total_env_steps:
            return "total_env_steps"
        if run.max_seconds is not None and self._seconds() >= run.max_seconds:
            return "max_seconds"
        if run.stop_at_return is not None and self._best is not None and self._best.mean >= run.stop_at_return:
            return "stop_at_return"
        return None

    def _casualties(self) -> Casualties:
        return self._earlier + self._runtime.casualties()

    def _seconds(self) -> float:
        return self._earlier_seconds + self._clock.monotonic() - self._began

    def _merge_moments(self, deltas: list[Any]) -> None:
        deltas = [delta for delta in deltas if delta]
        if deltas:
            for delta in deltas:
                self._moments.merge(delta)
            self._runtime.set_moments(self._moments.summary())

    def _judge(self, finished: Evaluation) -> None:
        mean = finished.result.mean
        self._view.evaluated(finished)
        told = {name: value for name, value in finished.result.summary().items() if name != "episodes"}
        self._evaluation = {"env_steps": finished.env_steps, **told}
        seconds = self._asked.pop(finished.env_steps, self._seconds())
        self._evaluations.append({**self._evaluation, "seconds": seconds})
        if self._best is None or mean >= self._best.mean:
            self._best = Best(mean, finished.env_steps, finished.snapshot)

    def _write_row(self) -> None:
        row = self._tally.row(self._seconds())
        stats = self._runtime.replay_stats()
        row["replay"] = {"size": stats.size, "inserted": stats.inserted, "sampled": stats.sampled}
        row["evaluation"] = self._evaluation
        row["restarts"] = self._casualties().restarts
        row["time"]["bound_by"] = bound_by(row)
        self._writer.write(row, self._clock.wall())
        self._row = row

    def _checkpoint_last(self, scheduled: bool, *, judge: bool) -> CheckpointError | None:
        """The checkpoint the run ends with, after the one under way; `judge` its policy as a candidate for the best.

        Returns why there is none, where it was given up again and again.
        """
        checkpoints = self._checkpoints
        self._bring_to_cut(judge=False)
        checkpoints.wait()
        for _ in range(_LAST_TRIES):
            checkpoints.begin(self._tally.env_steps, scheduled=scheduled)
            self._bring_to_cut(judge=judge)
            checkpoints.wait()
            if checkpoints.failure is None:
                return None
            while checkpoints.paused:  # what died is being replaced
                self._take_in(self._runtime.advance())
        return checkpoints.failure

    def _end_without_checkpoint(self, result: dict[str, Any], failure: CheckpointError) -> NoReturn:
        """What the run came to is written all the same; its policy is on no disk, so nobody evaluates it."""
        with suppress(OSError):  # the disk that took no checkpoint
            self._run.write_result(result)
        self._milestones.end(result)
        raise failure

    def _bring_to_cut(self, *, judge: bool) -> None:
        while not self._take_cut(judge=judge) and self._checkpoints.awaits_cut:
            self._take_in(self._runtime.advance())

    def _take_cut(self, *, judge: bool = False) -> bool:
        """Whether a checkpoint got its cut: what this moment is made of is noted, and goes into it."""
        cut = self._checkpoints.cut()
        if cut is None:
            return False
        self._newest = cut.snapshot
        self._take_in(cut.progress)
        if judge and self._config.evaluation.every_env_steps:
            self._judge_newest(cut.snapshot)
        self._write_row()  # nothing is left over in sums, so that a resumed run's next row is the same
        policies = {POLICY_FILE: self._newest} | ({} if self._best is None else {BEST_FILE: self._best.snapshot})
        self._checkpoints.complete(cut, self._manifest(), policies)
        return True

    def _judge_newest(self, snapshot: WeightSnapshot) -> None:
        """The policy a run ends with is a candidate too, on the seeds that the others were judged by."""
        seconds, seed = self._seconds(), derive(self._config.run.seed, family=SeedFamily.SELECTION)
        result = self._runtime.evaluate(snapshot, self._config.evaluation.episodes, seed)
        for finished in self._runtime.finished_evaluations():
            self._judge(finished)
        self._asked[self._tally.env_steps] = seconds
        self._judge(Evaluation(self._tally.env_steps, snapshot, result))

    def _manifest(self) -> dict[str, Any]:
        casualties = self._casualties()
        best, newest = self._best, self._newest
        assert newest is not None
        return {
            "scheduled": self._checkpoints.scheduled,
            "env_steps": self._tally.env_steps,
            "actor_env_steps": self._tally.actor_env_steps,
            "shards": self._config.replay.shards,
            "barriers": self._checkpoints.begun,
            "logged_records": self._log.records,
            "seconds": self._seconds(),
            "metrics_rows": self._writer.rows,
            "totals": self._tally.state(),
            "moments": self._moments.state(),
            "policy_version": newest.version,
            "evaluation": self._evaluation,
            "periodic_evaluations": self._evaluations,
            "best": best and {"mean": best.mean, "env_steps": best.env_steps, "version": best.snapshot.version},
            "restarts": casualties.restarts,
            "lost_transitions": casualties.lost_transitions,
        }

    def _look(self) -> None:
        """Tell how the run is, and where its processes are."""
        evaluations = (self._evaluation, len(self._evaluations))
        told = figures(self._tally, self._row, self._checkpoints, self._casualties(), evaluations, self._seconds())
        self._status.look(told)
        if self._exporter is not None:
            self._exporter.refresh()

    def _evaluate_best(self) -> dict[str, Any]:
        episodes = self._config.evaluation.final_episodes
        self._view.say(f"final evaluation: {episodes} fresh episodes")
        seed = derive(self._config.run.seed, family=SeedFamily.FINAL)
        result = self._runtime.evaluate(self.best_snapshot, episodes, seed)
        return result.summary()

    def _result(self, reason: str, seconds: float, start_up_seconds: float) -> dict[str, Any]:
        tally, casualties, stats = self._tally, self._casualties(), self._runtime.replay_stats()
        total, count, maximum = tally.staleness
        best = self._best
        return {
            "run": self._run.id,
            "stopped_by": reason,
            "seed": self._config.run.seed,
            "offline": tally.offline,
            "env_steps": tally.env_steps,
            "updates": tally.updates,
            "skipped_updates": tally.skipped_updates,
            "wall_seconds": seconds,
            "start_up_seconds": start_up_seconds,
            "env_steps_per_second": tally.env_steps / max(seconds, 1e-9),
            "updates_per_second": tally.updates / max(seconds, 1e-9),
            "evaluation": None,
            "best_periodic_evaluation": best and {"mean": best.mean, "env_steps": best.env_steps},
            "periodic_evaluations": self._evaluations,
            "weights_version": tally.weights_version,
            "staleness": {
                "median": tally.median_staleness,
                "mean": total / count if count else None,
                "max": maximum if count else None,
            },
            "overdue_transitions": tally.overdue_transitions,
            "restarts": casualties.restarts,
            "lost_transitions": casualties.lost_transitions,
            "quarantined_actors": casualties.quarantined,
            "fenced_transitions": sum(shard.fenced for shard in stats.shards),
            "replay_size": stats.size,
            "given_up_checkpoints": self._checkpoints.given_up,
        }


def _crossed(before: int, now: int, every: int) -> bool:
    return every > 0 and now // every > before // every


def _share(total: int, count: int, before: list[int]) -> list[int]:
    """Each actor's own count, or an even split when the number of actors changed."""
    if len(before) == count:
        return list(before)
    return [total // count + (index < total % count) for index in range(count)]
