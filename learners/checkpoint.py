"""Learner state and weights on disk: safetensors and JSON, never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from learners.learner import Learner
from learners.weights import WeightSnapshot
from replay_server.batches import SampleBatch
from replay_server.errors import CheckpointError

LEARNER_FILE = "learner.safetensors"


def learner_arrays(learner: Learner) -> dict[str, NDArray[Any]]:
    """Everything a bit-exact continuation needs, copied: the learner may go on."""
    return {name: tensor.numpy() for name, tensor in learner.state_dict().items()}


def save_learner(arrays: Mapping[str, NDArray[Any]], directory: Path) -> None:
    """Write what `learner_arrays` gave as `learner.safetensors` into a directory.

    Raises:
        CheckpointError: it cannot be written.
    """
    _save(dict(arrays), directory / LEARNER_FILE)


def read_learner(directory: Path) -> dict[str, NDArray[Any]]:
    """What `save_learner` wrote; raises CheckpointError where it is missing or damaged."""
    path = directory / LEARNER_FILE
    try:
        return load_arrays(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no readable learner ({error})") from error


def restore_learner(learner: Learner, arrays: Mapping[str, NDArray[Any]], directory: Path) -> None:
    """Continue a learner from `learner_arrays`.

    Args:
        learner: becomes what was saved.
        arrays: copied.
        directory: they come from, for messages.

    Raises:
        CheckpointError: they are of another network.
    """
    try:
        learner.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{directory / LEARNER_FILE}: not a checkpoint of this learner ({reason}); was the config changed?"
        ) from error


def save_snapshot(snapshot: WeightSnapshot, path: Path) -> None:
    """Write one weight snapshot as a safetensors file; raises CheckpointError where that cannot be."""
    arrays = {name: np.ascontiguousarray(array) for name, array in snapshot.arrays().items()}
    _save(arrays, path)


def load_snapshot(path: Path, version: int) -> WeightSnapshot:
    """Read a weight snapshot back; the version is kept outside the file.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        return WeightSnapshot.of(version, load_arrays(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no readable weights ({error})") from error


def save_batch(batch: SampleBatch, path: Path) -> None:
    """Write a sample as a safetensors file: its columns by name, `key` uint32[B, 4] and `probability` float64[B]."""
    arrays = {name: np.ascontiguousarray(column) for name, column in batch.columns.items()}
    arrays["key"] = np.ascontiguousarray(batch.keys).view(np.uint32).reshape(len(batch), -1)
    arrays["probability"] = batch.probabilities
    save_arrays(arrays, path)


def _save(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    try:
        save_arrays(arrays, path)
        sync(path)
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def write_json(path: Path, document: object) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    replace_text(path, json.dumps(document, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader, and whoever comes after a crash, sees the old one or the whole new one."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    sync(beside)
    beside.replace(path)


def sync(path: Path) -> None:
    """Have the operating system write a file's bytes, or a directory's names, to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
