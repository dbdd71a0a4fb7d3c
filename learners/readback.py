"""What an update found out, on its way from the device to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from replay_server.batches import SampleBatch


@dataclass(frozen=True)
class Finished:
    """One update, seen from the host.

    Attributes:
        batch: what was learnt from.
        finite: whether loss, gradient and priorities were; if not, nothing has changed.
        priorities: float64[B], or None where records have none.
    """

    batch: SampleBatch
    finite: bool
    priorities: NDArray[Any] | None


class UnderWay:
    """An update that the device may still be at; the copy of its results follows it in the device's queue.

    Args:
        batch: what is learnt from.
        finite: bool[].
        priorities: float64[B], or None.
    """

    def __init__(self, batch: SampleBatch, finite: Tensor, priorities: Tensor | None) -> None:
        self._batch, self._has_priorities = batch, priorities is not None
        packed = finite.double().view(1)
        if priorities is not None:
            packed = torch.cat([packed, priorities])
        on_gpu = packed.device.type == "cuda"
        self._host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=on_gpu)
        self._host.copy_(packed, non_blocking=True)
        self._event = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        if self._event is not None:
            self._event.record()

    def finish(self) -> Finished:
        """Wait for it."""
        if self._event is not None:
            self._event.synchronize()
        values = self._host.numpy()
        return Finished(self._batch, bool(values[0]), values[1:] if self._has_priorities else None)
