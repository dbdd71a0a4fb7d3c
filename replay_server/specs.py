"""The layout of one packed record and what its numbers mean."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import InvalidRecord, SchemaMismatch

_LARGEST = 1 << 30  # bytes of one value
_WIDE = 16  # fields of this many bytes or more start at a multiple of it


@dataclass(frozen=True)
class Field:
    """One named array inside a record.

    Args:
        name: column name, a Python identifier.
        dtype: numpy dtype name of a fixed-size number or bool, for example `float32`.
        shape: shape of one record's value, without the batch axis.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise SchemaMismatch(f"field name {self.name!r} is not an identifier")
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise SchemaMismatch(f"field {self.name!r}: {self.dtype!r} is not a numpy dtype") from None
        if dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise SchemaMismatch(
                f"field {self.name!r}: dtype {self.dtype!r} is not a number of at most 8 bytes or bool"
            )
        object.__setattr__(self, "dtype", dtype.name)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if any(n < 1 for n in self.shape):
            raise SchemaMismatch(f"field {self.name!r}: shape {self.shape} has an empty axis")
        if math.prod(self.shape) * dtype.itemsize > _LARGEST:
            raise SchemaMismatch(f"field {self.name!r}: shape {self.shape} makes more than {_LARGEST:,} bytes a record")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype as stored: always little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def size(self) -> int:
        """Bytes of one record's value."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclass(frozen=True)
class RecordSpec:
    """A fixed-size packed record: named fields at aligned offsets, little-endian.

    Fields keep their order. A field of 16 bytes or more starts at a multiple of 16, a smaller one at a multiple of
    its item size; the record size is a multiple of 16. Two specs are interchangeable exactly when their digests are
    equal; the digest covers fields and semantics.

    Args:
        fields: the columns.
        semantics: what the numbers mean, as text (`gamma`, `n_step`, `reward_scale`); data of other semantics are
            refused.
    """

    fields: tuple[Field, ...]
    semantics: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "semantics", MappingProxyType({str(k): str(v) for k, v in self.semantics.items()}))
        if not self.fields:
            raise SchemaMismatch("a record needs at least one field")
        names = [f.name for f in self.fields]
        if len(set(names)) != len(names):
            raise SchemaMismatch(f"duplicate field names in {names}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordSpec) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordSpec, (self.fields, dict(self.semantics))

    @cached_property
    def record_dtype(self) -> np.dtype[Any]:
        """Structured numpy dtype of one record, `itemsize == record_size`."""
        offsets, end = [], 0
        for f in self.fields:
            alignment = _WIDE if f.size >= _WIDE else f.numpy_dtype.itemsize
            start = -(-end // alignment) * alignment
            offsets.append(start)
            end = start + f.size
        return np.dtype(
            {
                "names": [f.name for f in self.fields],
                "formats": [(f.numpy_dtype, f.shape) for f in self.fields],
                "offsets": offsets,
                "itemsize": -(-end // _WIDE) * _WIDE,
            }
        )

    @property
    def record_size(self) -> int:
        """Bytes of one packed record."""
        return self.record_dtype.itemsize

    @cached_property
    def digest(self) -> str:
        """SHA-256 of fields and semantics, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON text, the same on every machine."""
        document = {
            "fields": [{"name": f.name, "dtype": f.dtype, "shape": list(f.shape)} for f in self.fields],
            "semantics": dict(self.semantics),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> RecordSpec:
        """Inverse of `to_json`; raises SchemaMismatch on anything else."""
        try:
            document = json.loads(text)
            fields = tuple(Field(f["name"], f["dtype"], tuple(f["shape"])) for f in document["fields"])
            return RecordSpec(fields, document["semantics"])
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaMismatch(f"not a record spec: {error}") from None

    def pack(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Copy columns into packed records.

        Args:
            columns: exactly this spec's fields, each `[B, *shape]` of exactly the field's dtype.

        Returns:
            uint8[B, record_size]; padding bytes are zero.

        Raises:
            InvalidRecord: a column is missing, unknown, or of another dtype, shape or length.
        """
        self._check_names(columns)
        batch = len(np.asarray(columns[self.fields[0].name]))
        records = np.zeros((batch, self.record_size), dtype=np.uint8)
        views = self.columns(records)
        for f in self.fields:
            column = np.asarray(columns[f.name])
            if column.dtype != f.numpy_dtype:
                raise InvalidRecord(f"column {f.name!r} has dtype {column.dtype}, the record spec says {f.dtype}")
            if column.shape != (batch, *f.shape):
                raise InvalidRecord(
                    f"column {f.name!r} has shape {column.shape}, the record spec says {(batch, *f.shape)}"
                )
            views[f.name][...] = column
        return records

    def columns(self, records: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Zero-copy column views, each `[B, *shape]`, of C-contiguous uint8[B, record_size]."""
        if records.dtype != np.uint8 or records.ndim != 2 or records.shape[1] != self.record_size:
            raise InvalidRecord(
                f"records are {records.dtype}{list(records.shape)}, the record spec says uint8[B, {self.record_size}]"
            )
        rows = records.view(self.record_dtype)[:, 0]
        return {f.name: rows[f.name] for f in self.fields}

    def _check_names(self, columns: Mapping[str, NDArray[Any]]) -> None:
        expected = {f.name for f in self.fields}
        if missing := sorted(expected - columns.keys()):
            raise InvalidRecord(f"missing column(s) {missing}; the record spec has {sorted(expected)}")
        if unknown := sorted(columns.keys() - expected):
            raise InvalidRecord(f"unknown column(s) {unknown}; the record spec has {sorted(expected)}")


def check_same_spec(ours: RecordSpec, theirs: RecordSpec, address: str) -> None:
    """Raises SchemaMismatch naming the fields and semantics that differ."""
    if ours == theirs:
        return
    differences = []
    a, b = ({f.name: f for f in spec.fields} for spec in (ours, theirs))
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            texts = [f"{f.dtype}{list(f.shape)}" if f else "missing" for f in (a.get(name), b.get(name))]
            differences.append(f"field {name!r} is {texts[0]} here, {texts[1]} there")
    for name in sorted(ours.semantics.keys() | theirs.semantics.keys()):
        mine, other = ours.semantics.get(name), theirs.semantics.get(name)
        if mine != other:
            differences.append(f"semantics {name!r} is {mine!r} here, {other!r} there")
    raise SchemaMismatch(f"shard at {address} holds other records: {'; '.join(differences) or 'fields in other order'}")
