"""One thing that is wrong with a cluster file, and schema errors put that way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import ValidationError

PLACEHOLDER = "CHANGE-ME"
"""What a shipped file holds where only the user knows the value."""


@dataclass(frozen=True)
class Problem:
    """What is wrong.

    Args:
        field: dotted path in the file.
        text: what is wrong and what to do about it.
    """

    field: str
    text: str


def from_schema(error: ValidationError) -> Problem:
    """A schema error with the full path of its field; a key nobody knows comes with the nearest one that there is."""
    path = [str(part) for part in error.absolute_path]
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = list(error.schema.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        close = get_close_matches(str(unknown), known, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
        return Problem(".".join([*path, str(unknown)]), f"no such field; {remedy}")
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return Problem(".".join([*path, missing]), "missing; it must be given")
    field = ".".join(path) or "the file"
    if error.validator == "type":
        wanted = error.validator_value
        wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
        article = "an" if wanted[0] in "aeiou" else "a"
        return Problem(field, f"must be {article} {wanted}, not {error.instance!r}")
    return Problem(field, f"{error.message}; correct it")


def placeholders(value: Any, path: Sequence[str] = ()) -> Iterator[Problem]:
    """Every text that still holds the placeholder of a shipped file."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from placeholders(inner, (*path, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from placeholders(inner, (*path, str(index)))
    elif isinstance(value, str) and PLACEHOLDER in value:
        yield Problem(".".join(path), f"{value!r} is still to be filled in; the comment beside it says with what")
