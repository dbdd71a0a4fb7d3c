"""The HDF5 file of a snapshot: its datasets, where their bytes are, and its checksum.

h5py holds the interpreter's lock while it reads and writes. So it only makes the file, with all space reserved, and
looks up where every dataset lies; the bytes themselves go past it.

HDF5 trusts its own structures: a flipped bit in them can send it into an endless loop. So the file ends with a trailer,
which HDF5 does not mind: FORMAT in 28 bytes, then the CRC32C of every byte before it. It is checked before HDF5 sees
the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

from replay_server.batches import KEY_DTYPE
from replay_server.errors import CheckpointError
from replay_server.specs import RecordSpec

FORMAT = "headrace replay shard 2"

FREE_DTYPE = np.dtype([("slot", "<u4"), ("generation", "<u4")])

_TEXTS = ("spec", "writers", "rng")  # datasets, because an HDF5 attribute holds 64 KiB at most
_BLOCK_BYTES = 4 << 20
_TRAILER_BYTES = 32


class Kind(NamedTuple):
    """Shape and dtype of a dataset."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


class Stream:
    """The bytes of one contiguous dataset, written or read front to back."""

    def __init__(self, descriptor: int, offset: int, kind: Kind) -> None:
        self.kind = kind
        self._descriptor = descriptor
        self._at = offset

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows, of any strides."""
        self._at += write_all(self._descriptor, rows.tobytes(), self._at)

    def read(self, rows: int) -> NDArray[Any]:
        """The next rows; raises ValueError when the file ends before them."""
        data = os.pread(self._descriptor, rows * self.kind.row_bytes, self._at)
        self._at += len(data)
        return np.frombuffer(data, self.kind.dtype).reshape(rows, *self.kind.shape[1:])

    def read_all(self) -> NDArray[Any]:
        """Every row."""
        rows = np.empty(self.kind.shape, self.kind.dtype)
        for start, stop in blocks(self.kind.shape[0], self.kind.row_bytes):
            rows[start:stop] = self.read(stop - start)
        return rows


def write_all(descriptor: int, data: bytes, offset: int) -> int:
    """Write at an offset, however many calls it takes; the number of bytes."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
    return len(data)


def blocks(rows: int, row_bytes: int) -> list[tuple[int, int]]:
    """Row ranges of bounded size that cover [0, rows)."""
    step = max(_BLOCK_BYTES // row_bytes, 1)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def kinds_of(spec: RecordSpec, size: int, free: int, counts_draws: bool) -> dict[str, Kind]:
    """Every dataset that is not a text, for `size` records and `free` slots that once held one."""
    kinds = {f"columns/{f.name}": Kind((size, *f.shape), f.numpy_dtype) for f in spec.fields}
    if len(padding := padding_of(spec)):
        kinds["padding"] = Kind((size, len(padding)), np.dtype("u1"))
    kinds["keys"] = Kind((size,), KEY_DTYPE)
    kinds["priorities"] = Kind((size,), np.dtype("<f8"))
    if counts_draws:
        kinds["times_sampled"] = Kind((size,), np.dtype("<u4"))
    kinds["free"] = Kind((free,), FREE_DTYPE)
    return kinds


def padding_of(spec: RecordSpec) -> NDArray[np.int64]:
    """Byte positions of a record that belong to no field."""
    used = np.zeros(spec.record_size, np.bool_)
    for field in spec.fields:
        offset = spec.record_dtype.fields[field.name][1]  # type: ignore[index]
        used[offset : offset + field.size] = True
    return np.flatnonzero(~used)


def create(path: Path, attributes: dict[str, Any], kinds: dict[str, Kind]) -> dict[str, int]:
    """Make a file that lacks only the bytes of its datasets and its seal; the offset of each dataset."""
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))  # as the journal's files, whatever the umask
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, value in attributes.items():
            if name in _TEXTS:
                file.create_dataset(name, data=value, dtype=h5py.string_dtype("utf-8", len(value.encode())))
            else:
                file.attrs[name] = value
        for name, kind in kinds.items():
            file.create_dataset(name, kind.shape, kind.dtype, dcpl=reserved)
        return {name: _offset(file, name) for name in kinds}


def seal(descriptor: int) -> Iterator[None]:
    """Append the trailer; comes up for air after every few megabytes."""
    size = os.fstat(descriptor).st_size
    crc = 0
    for start, stop in blocks(size, 1):
        crc = google_crc32c.extend(crc, os.pread(descriptor, stop - start, start))
        yield
    name = FORMAT.encode().ljust(_TRAILER_BYTES - 4, b"\0")
    write_all(descriptor, name + google_crc32c.extend(crc, name).to_bytes(4, "little"), size)


def check_seal(descriptor: int) -> None:
    """Read the whole file and compare; raises CheckpointError for another format, a partial or a damaged file."""
    size = os.fstat(descriptor).st_size - _TRAILER_BYTES
    trailer = os.pread(descriptor, _TRAILER_BYTES, size) if size > 0 else b""
    name = trailer[:-4].rstrip(b"\0").decode(errors="replace")
    if not name.startswith("headrace"):
        raise CheckpointError("cut off, or not a snapshot of this version: it does not end with a headrace checksum")
    crc = 0
    for start, stop in blocks(size + _TRAILER_BYTES - 4, 1):
        crc = google_crc32c.extend(crc, os.pread(descriptor, stop - start, start))
    if crc != int.from_bytes(trailer[-4:], "little"):
        raise CheckpointError("damaged: its checksum does not match its content")
    if name != FORMAT:
        raise CheckpointError(f"format is {name!r}, this version reads {FORMAT!r}")


def stated_checksum(path: Path) -> int:
    """The checksum a snapshot ends with, not compared with anything; 0 of a file too short to have one."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 4), os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """What `create` was given."""
    texts = {name: file[name].asstr()[()] for name in _TEXTS}
    return texts | {
        name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()
    }


def open_streams(file: h5py.File, descriptor: int, kinds: dict[str, Kind]) -> dict[str, Stream]:
    """Streams that read the datasets; raises ValueError or KeyError where one is missing or of another kind."""
    for name, kind in kinds.items():
        dataset = file[name]
        if dataset.shape != kind.shape or dataset.dtype != kind.dtype:
            raise ValueError(f"{name} is {dataset.dtype}{dataset.shape} instead of {kind.dtype}{kind.shape}")
    return {name: Stream(descriptor, _offset(file, name), kind) for name, kind in kinds.items()}


def _offset(file: h5py.File, name: str) -> int:
    offset = file[name].id.get_offset()
    if offset is None and file[name].size:
        raise ValueError(f"{name} is not contiguous")
    return offset or 0
