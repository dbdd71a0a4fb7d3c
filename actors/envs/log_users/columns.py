"""Which column of a log of ratings is what, told from its first line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replay_server.errors import ConfigError

_SEPARATORS = ("::", "\t", ";", ",", "|", " ")  # the first that the line has: a date may hold a space
_NAMES = {
    "user": {"user", "userid", "uid", "reviewer", "reviewerid", "customerid"},
    "item": {"item", "itemid", "iid", "movie", "movieid", "film", "filmid", "product", "productid", "asin", "isbn"},
    "rating": {"rating", "score", "stars", "overall", "bookrating"},
    "time": {"time", "timestamp", "ts", "date", "datetime", "unixreviewtime"},
}
_WANTED = "user,item,rating,time"


@dataclass(frozen=True)
class Columns:
    """Where a line of the log holds what.

    Attributes:
        separator: between two fields.
        user, item, rating: places, from 0.
        time: place, or None where the order of the lines is the order in time.
        header: whether the first line names the columns.
    """

    separator: str
    user: int
    item: int
    rating: int
    time: int | None
    header: bool

    @classmethod
    def of(cls, first: str, where: str) -> Columns:
        """Tell them from the first line of the file.

        Without a header the order is that of MovieLens: user, item, rating and, where there is a fourth, time.

        Args:
            first: the line.
            where: what errors call it.

        Raises:
            ConfigError: it names too little, or is neither a header nor a rating.
        """
        separator = next((s for s in _SEPARATORS if s in first.strip()), None)
        if separator is None:
            raise ConfigError(f"{where}: {_shown(first)} is one field; give {_WANTED} with commas, tabs or :: between")
        fields = next(split([first], separator))
        named = [_meaning(field) for field in fields]
        if any(named):
            missing = [name for name in ("user", "item", "rating") if name not in named]
            if missing:
                raise ConfigError(
                    f"{where}: the header {_shown(first)} names no {' and no '.join(missing)}; call the columns "
                    f"{_WANTED}"
                )
            time = named.index("time") if "time" in named else None
            return cls(separator, named.index("user"), named.index("item"), named.index("rating"), time, True)
        if len(fields) < 3 or not _is_number(fields[2]):
            raise ConfigError(
                f"{where}: {_shown(first)} is neither a header that names {_WANTED} nor a rating in this order"
            )
        return cls(separator, 0, 1, 2, 3 if len(fields) > 3 else None, False)


def split(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The fields of each line; with a separator of one character fields may be quoted."""
    if len(separator) == 1:
        return csv.reader(lines, delimiter=separator)
    return (line.rstrip("\r\n").split(separator) for line in lines)


def _meaning(field: str) -> str | None:
    """What a column of this name holds; RecBole writes `user_id:token`."""
    name = re.sub(r"[^a-z]", "", field.partition(":")[0].lower())
    return next((meaning for meaning, names in _NAMES.items() if name in names), None)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _shown(line: str) -> str:
    text = line.rstrip("\r\n")
    return repr(text if len(text) <= 60 else text[:57] + "...")
