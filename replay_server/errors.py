"""Every error headrace raises on purpose, as one tree.

HeadraceError                   base: one clear sentence, what, where, what to do
|-- ConfigError                 wrong usage or configuration (exit code 2)
|-- EnvironmentFault            an environment broke its contract while running
|-- Diverged                    the learner produced values that are not finite, or its processes different ones
|-- CheckpointError             a checkpoint is missing, partial, damaged or of another kind
|-- WorkerDied                  a process the run cannot go on without has ended
|   `-- PeersLost               a process of the learner has lost the others
`-- ReplayError                 the replay data plane refused or could not answer
    |-- ReplayTimeout           a wait passed its deadline; `blocked_on` says what it waited for
    |-- SchemaMismatch          client and shard do not agree on the record layout or its semantics
    |-- InvalidRecord           records, priorities or keys of wrong shape, dtype or value
    |-- StaleEpoch              a writer was replaced by a newer epoch of itself
    |-- WriterEvicted           a shard has forgotten this writer and can no longer tell repeats from new chunks
    |-- StorageFull             the disk of a shard's journal takes nothing more; nothing was changed
    |-- Deadlocked              inserting and sampling wait for each other and neither can ever go on
    |-- JournalError            a journal is damaged or belongs to something else (exit code 2 at start)
    |-- Unauthenticated         no token, a wrong one, or no trust in the other side's certificate
    |-- NotShared               client and shard have no memory in common: another host or user, or a lost session
    `-- Unavailable             a shard cannot be reached
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all errors raised on purpose; its text is one line a user can act on."""


class ConfigError(HeadraceError):
    """Wrong usage or configuration; the command line exits with code 2."""


class EnvironmentFault(HeadraceError):
    """An environment broke its contract while running (NaN observation, wrong shape, exception)."""


class Diverged(HeadraceError):
    """The learner produced a loss or priority that is not finite, or its processes hold different weights."""


class CheckpointError(HeadraceError):
    """A checkpoint is missing, partial, damaged or belongs to something else."""


class WorkerDied(HeadraceError):
    """A process the run cannot go on without has ended."""


class PeersLost(WorkerDied):
    """A process of the learner cannot go on because another one has ended or did not answer in time."""


class ReplayError(HeadraceError):
    """Base of everything the replay data plane refuses or cannot do."""


class ReplayTimeout(ReplayError):
    """A wait passed its deadline.

    Args:
        message: one line saying what was waited for.
        blocked_on: `min_size` (too few records yet), `inserts` (sampling waits for more inserts),
            `samples` (inserting waits for more samples), `snapshot` (inserting waits until a snapshot has made
            room for before-images), `bytes` (replies under way fill the shard's budget), `disk` (the journal's disk
            is full, or has not written back yet) or `reply` (no answer arrived in time).
    """

    def __init__(self, message: str, blocked_on: str) -> None:
        super().__init__(message)
        self.blocked_on = blocked_on

    def __reduce__(self) -> tuple[type[ReplayTimeout], tuple[str, str]]:
        return ReplayTimeout, (str(self), self.blocked_on)


class SchemaMismatch(ReplayError):
    """Client and shard do not agree on the record layout or on what its numbers mean."""


class InvalidRecord(ReplayError):
    """Records, priorities or keys of wrong shape, dtype or value; nothing was changed."""


class StaleEpoch(ReplayError):
    """This writer was replaced by a newer epoch of itself; its records are refused."""


class WriterEvicted(ReplayError):
    """The shard remembers a bounded number of writers and has forgotten this one: open a new writer."""


class StorageFull(ReplayError):
    """The disk of a shard's journal is full; nothing was changed, and inserts go on when space returns."""


class Deadlocked(ReplayError):
    """Inserts and samples of a shard have waited for each other for seconds; nothing can free them."""


class JournalError(ReplayError):
    """A journal is damaged, or belongs to another spec or shard; the message names the segment."""


class Unauthenticated(ReplayError):
    """The shard refuses this client, or this client does not trust the shard."""


class NotShared(ReplayError):
    """Client and shard cannot share memory, or the shard no longer knows the session; gRPC works all the same."""


class Unavailable(ReplayError):
    """A shard cannot be reached, or ended while a call was under way."""
