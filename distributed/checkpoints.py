"""Checkpoints of a run: at most one under way, taken while training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from distributed.background import in_background
from distributed.remote_checkpoints import RemoteCheckpoints
from distributed.run_directory import RunDirectory
from distributed.runtime import Cut, Runtime
from learners.checkpoint import save_snapshot
from learners.weights import WeightSnapshot
from replay_server.errors import CheckpointError

_AGAIN_SECONDS = 10.0
"""After a checkpoint that was given up, before the next is tried."""

_AT_ONCE_SECONDS = 2.0
"""What a thread gets to end with the runtime it hears from, when nobody wants to wait."""


@dataclass
class _UnderWay:
    """A checkpoint that is not complete; `completing` from its cut on."""

    directory: Path
    scheduled: bool
    begun: float
    completing: Future[str | None] | None = None


class Checkpoints:
    """Begins a checkpoint when one is due, and sees that it is completed or given up.

    One that falls due while another is under way follows as soon as that is complete; several that do are one. One
    whose learner or shard dies meanwhile is given up, what there is of it removed, and soon tried again.

    Args:
        runtime: makes the cut, and writes learner and replay.
        run: where to.
        keep: newest checkpoints that stay.
        clock: monotonic seconds.
        say: tells a person, in one line.
        copies: where complete ones are copied to, or None. A copy that fails costs nothing but the copy.
    """

    def __init__(
        self,
        runtime: Runtime,
        run: RunDirectory,
        keep: int,
        clock: Callable[[], float],
        say: Callable[[str], None],
        copies: RemoteCheckpoints | None,
    ) -> None:
        self._runtime = runtime
        self._run = run
        self._keep = keep
        self._clock = clock
        self._say = say
        self._copies = copies
        self._due = False
        self._not_before = -math.inf
        self._under_way: _UnderWay | None = None
        self.begun = 0
        """Checkpoints begun in the run's life, for `Runtime.begin_checkpoint`."""
        self.given_up = 0
        """Checkpoints given up since the run was started or resumed."""
        self.completed = 0
        """Checkpoints completed since the run was started or resumed."""
        self.seconds: float | None = None
        """From the beginning of the newest complete one until it was."""
        self.failure: CheckpointError | None = None
        """Why the newest was given up; None when it was completed."""

    @property
    def awaits_cut(self) -> bool:
        """One is under way whose cut is not made."""
        return self._under_way is not None and self._under_way.completing is None

    @property
    def under_way(self) -> bool:
        """One is begun and neither complete nor given up."""
        return self._under_way is not None

    @property
    def paused(self) -> bool:
        """One was given up a moment ago."""
        return self._clock() < self._not_before

    @property
    def scheduled(self) -> bool:
        """Whether the one under way was due, rather than made because the run ends."""
        return self._under_way is not None and self._under_way.scheduled

    def advance(self, env_steps: int, due: bool) -> None:
        """Begin the checkpoint that is due, now or since earlier, and hear of the one that a thread completes."""
        self._due |= due
        if self._under_way is not None and self._under_way.completing is not None and self._under_way.completing.done():
            self.wait()
        if self._due and self._under_way is None and not self.paused:
            self._due = False
            self.begin(env_steps, scheduled=True)

    def begin(self, env_steps: int, *, scheduled: bool) -> None:
        """Begin one; none is under way."""
        assert self._under_way is None
        self.begun += 1
        self._under_way = _UnderWay(self._run.new_checkpoint(env_steps), scheduled, self._clock())
        self._runtime.begin_checkpoint(self._under_way.directory, self.begun)

    def cut(self) -> Cut | None:
        """The cut of the one under way, once; None where there is nothing new. `complete` follows."""
        if not self.awaits_cut:
            return None
        try:
            return self._runtime.cut()
        except CheckpointError as error:
            self._give_up(error)
            return None

    def complete(self, cut: Cut, manifest: Mapping[str, Any], policies: Mapping[str, WeightSnapshot]) -> None:
        """Write what belongs to a cut, in a thread where its runtime is still writing.

        Args:
            cut: of the one under way.
            manifest: what the driver knows at that moment.
            policies: file name -> policy.
        """
        under_way = self._under_way
        assert under_way is not None
        write = partial(self._write, under_way.directory, cut, manifest, policies)
        under_way.completing = in_background(write, "checkpoint")
        if cut.write is None:
            self.wait()

    def wait(self) -> None:
        """Until the one whose cut is made is complete or given up: shards and a URL that make no progress end it."""
        if self._under_way is None or self._under_way.completing is None:
            return
        try:
            notice = self._under_way.completing.result()
        except CheckpointError as error:
            self._give_up(error)
            return
        self.completed += 1
        self.seconds = self._clock() - self._under_way.begun
        self._under_way = self.failure = None
        if notice is not None:
            self._say(notice)

    def close(self, *, at_once: bool) -> None:
        """Let what is being written come to its end, once the runtime has been stopped; not if `at_once`.

        What is left then is whole or no checkpoint, as after a kill.
        """
        if self._under_way is not None and self._under_way.completing is not None:
            wait_for([self._under_way.completing], _AT_ONCE_SECONDS if at_once else None)

    def _write(
        self, directory: Path, cut: Cut, manifest: Mapping[str, Any], policies: Mapping[str, WeightSnapshot]
    ) -> str | None:
        """In a thread; returns what a person should be told."""
        try:
            for name, policy in policies.items():
                save_snapshot(policy, directory / name)
            if cut.write is not None:
                cut.write()
            complete = self._run.complete_checkpoint(directory, manifest, self._keep)
        except OSError as error:
            raise CheckpointError(f"{directory}: cannot be written: {error.strerror}") from error
        if self._copies is not None:
            try:
                self._copies.upload(complete, self._keep)
            except CheckpointError as error:
                return f"checkpoint {complete.name} is complete and has no copy: {error}"
        return None

    def _give_up(self, error: CheckpointError) -> None:
        assert self._under_way is not None
        directory, self._under_way = self._under_way.directory, None
        self._run.remove_unfinished(directory)
        self.failure = error
        self.given_up += 1
        self._due, self._not_before = True, self._clock() + _AGAIN_SECONDS
        self._say(f"checkpoint {directory.name} was given up: {error}")
