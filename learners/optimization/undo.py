"""Takes back an update that should not have been made."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from learners.optimization.flat import blocks


class Undo:
    """A copy of everything that an update changes, and the way back to it.

    Args:
        tensors: what updates change in place; in few pieces of memory it costs the least.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._live = blocks(tensors)
        self._saved = [torch.empty_like(tensor) for tensor in self._live]

    def save(self) -> None:
        """Copy everything as it is now."""
        torch._foreach_copy_(self._saved, self._live)

    def restore(self) -> None:
        """Put everything back."""
        torch._foreach_copy_(self._live, self._saved)

    def restore_unless(self, kept: Tensor) -> None:
        """Put everything back where `kept`, bool[], is false; decided on the device, nothing waits for it."""
        for live, saved in zip(self._live, self._saved, strict=True):
            torch.where(kept, live, saved, out=live)
