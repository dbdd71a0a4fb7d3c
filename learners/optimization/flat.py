"""Many tensors as one vector: an optimizer, a norm or a target update then is one kernel instead of one a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def flatten(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Move parameters into one vector, one after another; each becomes a view of it and keeps its value.

    Returns:
        float[n], sharing memory with all of them.
    """
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, view in zip(parameters, views(vector, parameters), strict=True):
        parameter.data = view
    return vector


def views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Stretches of a vector, one after another, each in the shape of its tensor in `like`."""
    pieces = torch.split(vector, [tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def blocks(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same memory in as few tensors as possible: those that follow one another there become one vector.

    Tensors without memory (device `meta`) stay as they are.
    """
    runs: list[list[Tensor]] = []
    for tensor in (tensor.detach() for tensor in tensors):
        if runs and _follows(runs[-1][-1], tensor):
            runs[-1].append(tensor)
        else:
            runs.append([tensor])
    return [run[0] if len(run) == 1 else _joined(run) for run in runs]


def _follows(first: Tensor, second: Tensor) -> bool:
    return (
        first.device.type != "meta"
        and first.dtype == second.dtype
        and first.is_contiguous()
        and second.is_contiguous()
        and first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        and first.storage_offset() + first.numel() == second.storage_offset()
    )


def _joined(run: Sequence[Tensor]) -> Tensor:
    return run[0].as_strided((sum(tensor.numel() for tensor in run),), (1,), run[0].storage_offset())
