"""Copies of one learner, each in a process of its own, that make every update together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import Tensor

from replay_server.batches import SampleBatch


class Agreed(NamedTuple):
    """What all replicas do next.

    Attributes:
        batch: this one's part of the batch of an update that all make now; None: somebody has no batch yet.
        more: another turn follows; the first replica's wish.
    """

    batch: SampleBatch | None
    more: bool


class Replicas(Protocol):
    """What a learner asks of its replicas, itself one of them.

    Replicas start alike, draw the same random numbers and make the same steps, each from its own rows of a batch. So
    every replica has to ask the same things in the same order; whoever asks waits for the others, with a deadline.

    Every method raises PeersLost where a replica has ended or did not answer in time.

    Attributes:
        rank: 0, 1, ...; the first publishes and writes checkpoints.
        count: how many there are.
    """

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def agree(self, batch: SampleBatch | None, *, more: bool) -> Agreed:
        """Whether all have a batch. If so it states what schedules and importance weights need of all parts."""

    def average(self, gradient: Tensor, loss: Tensor) -> Tensor:
        """Make a gradient [n] the mean over the replicas, in place; the mean of their losses, []."""

    def gather(self, rows: Tensor) -> Tensor:
        """Rows [B, ...] of every replica, one after another, without gradient: [count x B, ...]."""

    def mine(self, rows: Tensor) -> Tensor:
        """This replica's [B, ...] of such [count x B, ...]."""

    def everywhere(self, holds: Tensor) -> Tensor:
        """Whether bool[] holds for all of them, bool[] on its device; the host does not wait."""

    def all(self, holds: bool) -> bool:
        """Whether something holds for all of them."""

    def check_same(self, arrays: Iterable[NDArray[Any]]) -> None:
        """Compare arrays bit for bit.

        Raises:
            Diverged: replicas have different ones.
        """


class Alone:
    """The only replica: everything is as it says."""

    rank = 0
    count = 1

    def agree(self, batch: SampleBatch | None, *, more: bool) -> Agreed:
        """See Replicas.agree."""
        return Agreed(batch, more)

    def average(self, gradient: Tensor, loss: Tensor) -> Tensor:
        """See Replicas.average."""
        return loss

    def gather(self, rows: Tensor) -> Tensor:
        """See Replicas.gather."""
        return rows

    def mine(self, rows: Tensor) -> Tensor:
        """See Replicas.mine."""
        return rows

    def everywhere(self, holds: Tensor) -> Tensor:
        """See Replicas.everywhere."""
        return holds

    def all(self, holds: bool) -> bool:
        """See Replicas.all."""
        return holds

    def check_same(self, arrays: Iterable[NDArray[Any]]) -> None:
        """See Replicas.check_same."""


ALONE = Alone()
