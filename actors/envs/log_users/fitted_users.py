"""What was fitted on a log: users, items, and how likely which of them click on which."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import ConfigError

_FORMAT = 1
_SHAPES = {
    "user_factors": "Ud",
    "item_factors": "Nd",
    "generosity": "U",
    "quality": "N",
    "ratings": "N",
    "held_out": "U",
    "user_names": "U",
    "item_names": "N",
    "click": "4",
}


@dataclass(frozen=True)
class FittedUsers:
    """A population of U users and a catalogue of N items.

    P(click) = sigmoid(click[0] + click[1] u.v + click[2] generosity + click[3] quality).

    Attributes:
        user_factors: float32[U, d], root mean square 1.
        item_factors: float32[N, d].
        generosity: float32[U], log odds that the user likes what he rates.
        quality: float32[N], log odds that who rates the item likes it.
        ratings: int64[N], how often the item was rated in the part that was fitted on.
        held_out: bool[U], users of whom item factors and click model saw nothing.
        user_names, item_names: str[U] and str[N], as the log has them.
        click: float64[4], the click model.
        source: what it was fitted on, and how.
        report: figures of the fit.
    """

    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    generosity: NDArray[np.float32]
    quality: NDArray[np.float32]
    ratings: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    user_names: NDArray[np.str_]
    item_names: NDArray[np.str_]
    click: NDArray[np.float64]
    source: dict[str, Any]
    report: dict[str, Any]

    def most_rated(self, count: int) -> FittedUsers:
        """The same users with the `count` most rated items only, these in their old order.

        Raises:
            ConfigError: there are not as many.
        """
        items = len(self.item_names)
        if not 1 <= count <= items:
            raise ConfigError(f"catalogue is {count}, must lie between 1 and the {items} items that were fitted")
        kept = np.sort(np.argsort(-self.ratings, kind="stable")[:count])
        return replace(
            self,
            item_factors=self.item_factors[kept],
            quality=self.quality[kept],
            ratings=self.ratings[kept],
            item_names=self.item_names[kept],
        )

    def save(self, path: Path) -> None:
        """Write a .npz without pickles; the file is there whole or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        notes = json.dumps({"format": _FORMAT, "source": self.source, "report": self.report})
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, notes=np.array(notes), **{name: getattr(self, name) for name in _SHAPES})
            partial.replace(path)
        except OSError as error:
            raise ConfigError(not_writable(path, error)) from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> FittedUsers:
        """Read what `save` wrote.

        Raises:
            ConfigError: the file is missing, damaged or another thing.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _SHAPES}
                notes = json.loads(str(file["notes"]))
            if notes["format"] != _FORMAT:
                raise ValueError(f"format {notes['format']}, this version reads {_FORMAT}")
            _check(arrays)
            return cls(**arrays, source=notes["source"], report=notes["report"])
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise ConfigError(f"{path}: cannot be read ({reason}); fit it with headrace fit-users LOG MODEL") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{path}: holds no fitted users ({' '.join(str(error).split())}); fit them with headrace fit-users LOG "
                "MODEL"
            ) from error


def not_writable(path: Path, error: OSError) -> str:
    """What to say where a model cannot be written."""
    return f"{path}: cannot be written ({error.strerror}); name another place for the model"


def _check(arrays: dict[str, NDArray[Any]]) -> None:
    """Raises ValueError where shapes do not fit each other or numbers are not finite."""
    sizes = {"4": 4}
    for name, letters in _SHAPES.items():
        array = arrays[name]
        known = [sizes.setdefault(letter, size) for letter, size in zip(letters, array.shape, strict=False)]
        if array.ndim != len(letters) or known != list(array.shape):
            raise ValueError(f"{name} has shape {list(array.shape)}, which does not fit the others")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
