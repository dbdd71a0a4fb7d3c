"""From a packed batch to tensors: one copy of the block, then views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replay_server.batches import SampleBatch
from replay_server.specs import RecordSpec

_BUFFERS = 3


class CopyEvent(Protocol):
    """Happens when the copies asked for before `record` are done (torch.cuda.Event)."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


class PinnedRing:
    """Host buffers taken in turn; one whose copy to the device is under way is waited for, never overwritten.

    Args:
        make_event: an event for each buffer.
        pinned: page-locked memory, which a GPU can copy from while the host goes on.
    """

    def __init__(self, make_event: Callable[[], CopyEvent], *, pinned: bool) -> None:
        self._events = [make_event() for _ in range(_BUFFERS)]
        self._buffers = [torch.empty(0, dtype=torch.uint8)] * _BUFFERS
        self._pinned = pinned
        self._turn = 0

    def copy(self, parts: list[NDArray[np.uint8]], device: torch.device) -> Tensor:
        """uint8 blocks, one after another, as one uint8 vector on the device."""
        self._turn = (self._turn + 1) % _BUFFERS
        event, size = self._events[self._turn], sum(part.size for part in parts)
        event.synchronize()
        if self._buffers[self._turn].numel() != size:
            self._buffers[self._turn] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        buffer = self._buffers[self._turn]
        np.concatenate([part.reshape(-1) for part in parts], out=buffer.numpy())
        on_device = buffer.to(device, non_blocking=True)
        event.record()
        return on_device


class Staging:
    """Columns and importance weights of packed batches as tensors on a device.

    On a CPU they lie in one block of memory, which every batch is copied to: that is cheaper than to make tensors of
    the batch's own memory. To a GPU they go in one transfer from pinned memory. They are not to be changed, and are
    good until the next batch.
    """

    def __init__(self, spec: RecordSpec, device: torch.device) -> None:
        self._device = device
        self._record_size = spec.record_size
        dtype = spec.record_dtype
        self._columns = []
        for field in spec.fields:
            assert dtype.fields is not None
            element, offset = np.dtype(field.dtype), dtype.fields[field.name][1]
            inner = np.empty(field.shape, element).strides
            strides = tuple(stride // element.itemsize for stride in (spec.record_size, *inner))
            torch_dtype = torch.from_numpy(np.empty(0, element)).dtype
            self._columns.append((field.name, torch_dtype, field.shape, strides, offset // element.itemsize))
        self._dtypes = {torch_dtype for _, torch_dtype, _, _, _ in self._columns}
        self._ring = PinnedRing(torch.cuda.Event, pinned=True) if device.type == "cuda" else None
        self._memory = np.empty((0, spec.record_size), np.uint8)
        self._here: dict[str, Tensor] = {}

    def __call__(self, batch: SampleBatch, weights: NDArray[np.float32]) -> tuple[dict[str, Tensor], Tensor]:
        """Columns, each [B, *shape], and weights float32[B], on the device."""
        if self._ring is not None:
            flat = self._ring.copy([batch.records, weights.view(np.uint8)], self._device)
            block, on_device = flat[: batch.records.size].view(batch.records.shape), flat[batch.records.size :]
            return self._views(block), on_device.view(torch.float32)
        if len(batch) != len(self._memory):
            block = torch.empty((len(batch), self._record_size), dtype=torch.uint8)
            self._memory, self._here = block.numpy(), self._views(block.to(self._device))
        np.copyto(self._memory, batch.records)
        return dict(self._here), torch.from_numpy(weights).to(self._device)

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        typed = {dtype: block.view(dtype) for dtype in self._dtypes}
        return {
            name: typed[dtype].as_strided((len(block), *shape), strides, offset)
            for name, dtype, shape, strides, offset in self._columns
        }
