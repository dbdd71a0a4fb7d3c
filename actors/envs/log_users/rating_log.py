"""Reads who rated what, and when, from a text file of one rating a line."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import open as open_with_progress

from actors.envs.log_users.columns import Columns, split
from replay_server.errors import ConfigError


@dataclass(frozen=True)
class RatingLog:
    """n ratings, every user's in the order of time, one for each user and item.

    Attributes:
        user, item: int64[n], places in `user_names` and `item_names`; sorted by user.
        rating: float32[n].
        user_names, item_names: str[U] and str[N], as the file has them.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.float32]
    user_names: NDArray[np.str_]
    item_names: NDArray[np.str_]


def read_log(path: Path, *, progress: bool = False) -> RatingLog:
    """Read a file of user, item, rating and time, of any order and separator that `Columns` knows.

    The file may be compressed (.gz). Times are seconds or ISO dates; equal ones keep the order of the lines. Where a
    user rated an item several times, the latest counts.

    Args:
        path: the file.
        progress: show a bar on standard error.

    Raises:
        ConfigError: the file cannot be read or a line is not a rating; one line with the place and what to do.
    """
    try:
        with open_with_progress(
            path, "rb", description=f"reading {path.name}", disable=not progress, console=Console(stderr=True)
        ) as raw:
            unpacked = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            return _parse(io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline=""), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text; convert it, for example with iconv -f latin1 -t utf-8"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: is no whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the file of a log of ratings") from error


def _parse(lines: Iterable[str], where: str) -> RatingLog:
    rows = iter(lines)
    first = next(rows, "")
    if not first.strip():
        raise ConfigError(f"{where}: the first line is empty; begin with a header user,item,rating,time or a rating")
    columns = Columns.of(first, f"{where}, line 1")
    if not columns.header:
        rows = _chain(first, rows)
    users, items, kept = _Names(), _Names(), array("d")
    number = int(columns.header)
    try:
        for fields in split(rows, columns.separator):
            number += 1
            if not fields or fields == [""]:
                continue
            kept.extend(
                (
                    users.place(fields[columns.user]),
                    items.place(fields[columns.item]),
                    _rating(fields[columns.rating]),
                    number if columns.time is None else _seconds(fields[columns.time]),
                )
            )
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{where}, line {number}: {error}; correct the line or leave it out") from error
    except IndexError as error:
        wanted = 1 + max(columns.user, columns.item, columns.rating, columns.time or 0)
        raise ConfigError(
            f"{where}, line {number}: {len(fields)} field(s) between {columns.separator!r}, the first line has at "
            f"least {wanted}; correct the line or leave it out"
        ) from error
    if not kept:
        raise ConfigError(f"{where}: has a header and no ratings; give a log with ratings in it")
    return _arranged(np.frombuffer(kept, dtype=np.float64).reshape(-1, 4), users, items)


def _arranged(table: NDArray[np.float64], users: _Names, items: _Names) -> RatingLog:
    """Sorted by user and time, the latest of each user and item only."""
    user, item = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    order = np.lexsort((table[:, 3], user))  # stable: equal times keep the order of the lines
    pair = (user * len(items.known) + item)[order]
    _, from_behind = np.unique(pair[::-1], return_index=True)
    latest = order[np.sort(len(pair) - 1 - from_behind)]
    return RatingLog(
        user=user[latest],
        item=item[latest],
        rating=table[latest, 2].astype(np.float32),
        user_names=np.array(list(users.known)),
        item_names=np.array(list(items.known)),
    )


class _Names:
    """Names in the order they come, each with its place."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def place(self, name: str) -> int:
        name = name.strip()
        if not name:
            raise ValueError("the user or the item is empty")
        return self.known.setdefault(name, len(self.known))


def _rating(text: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        raise ValueError(f"the rating {text.strip()!r} is not a number") from None
    if not math.isfinite(rating):
        raise ValueError(f"the rating {text.strip()!r} is not a number")
    return rating


def _seconds(text: str) -> float:
    """Seconds since 1970 of a number or an ISO date, taken for UTC where it does not say."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(
                f"the time {text.strip()!r} is neither a number nor a date like 2004-01-26 03:58:10"
            ) from None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"the time {text.strip()!r} is not a number")
    return seconds


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
