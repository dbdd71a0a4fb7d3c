"""From a packed batch to tensors: one copy of the block, then views."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from replay_server.batches import SampleBatch
from replay_server.specs import RecordSpec


class Staging:
    """Moves packed batches to a device: one host copy (pinned for a GPU), one transfer, columns as views.

    The tensors of one call are valid until the next call.
    """

    def __init__(self, spec: RecordSpec, device: torch.device) -> None:
        self._device = device
        dtype = spec.record_dtype
        self._columns = []
        for field in spec.fields:
            assert dtype.fields is not None
            offset = dtype.fields[field.name][1]
            torch_dtype = torch.from_numpy(np.empty(0, np.dtype(field.dtype))).dtype
            self._columns.append((field.name, offset, offset + field.size, torch_dtype, field.shape))
        self._record_size = spec.record_size
        self._host = torch.empty(0)

    def __call__(self, batch: SampleBatch) -> dict[str, Tensor]:
        """Column tensors of one batch, each [B, *shape], on the device."""
        size = len(batch)
        if self._host.shape[0] != size:
            self._host = torch.empty(
                (size, self._record_size), dtype=torch.uint8, pin_memory=self._device.type == "cuda"
            )
        np.copyto(self._host.numpy(), batch.records)
        block = self._host.to(self._device, non_blocking=True)
        return {
            name: block[:, start:end].view(dtype).reshape(size, *shape)
            for name, start, end, dtype, shape in self._columns
        }
