"""What the annotations of config structs say: nested structs, choices, sentences, all field names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

FieldTypes = Mapping[str, Any]
"""Field name -> annotation."""


def field_types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The annotations of a struct's fields, in order."""
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct an annotation allows, itself or behind `Annotated` and `| None`."""
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def type_inside(annotation: Any, key: str) -> Any:
    """The annotation of what `key` names in a value of this annotation; Any where nothing is known."""
    if (struct := struct_in(annotation)) is not None:
        return field_types(struct).get(key, Any)
    for part in _alternatives(annotation):
        arguments = [a for a in get_args(part) if a is not Ellipsis]
        if get_origin(part) in (list, tuple, dict) and arguments:
            return arguments[-1]
    return Any


def sentence(annotation: Any) -> str:
    """The description of a field, empty if it has none."""
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
    return ""


def choices(annotation: Any) -> list[str]:
    """The values of a `Literal`."""
    for part in _alternatives(annotation):
        if get_origin(part) is Literal:
            return [str(value) for value in get_args(part)]
    return []


def dotted_names(types: FieldTypes, prefix: str = "") -> Iterator[str]:
    """Every field below, `environment` and `environment.id` alike."""
    for name, annotation in types.items():
        yield prefix + name
        if (struct := struct_in(annotation)) is not None:
            yield from dotted_names(field_types(struct), f"{prefix}{name}.")


def _alternatives(annotation: Any) -> list[Any]:
    """The annotation without `Annotated`, taken apart where it is a union."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (list, tuple, dict, Literal) or not get_args(annotation):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _alternatives(argument)]
