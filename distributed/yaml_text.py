"""YAML in and out, stricter than PyYAML: YAML 1.2 numbers and booleans, no duplicate keys, the line of each value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from replay_server.errors import ConfigError

Keys = tuple[str, ...]
"""Keys from the root of a document to a value."""

_STRING, _LIST, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_RESOLVERS = (  # tag, pattern, first characters; `3e-4` is a number here, `on` and `12:30` are text
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
)
_EXACT_INTEGERS = 2.0**53


@dataclass(frozen=True)
class Document:
    """Plain values (dicts, lists, text, numbers, booleans, None) and the line, counted from 1, where each begins."""

    values: Any
    lines: dict[Keys, int]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  declared mutable by the parent


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  declared mutable by the parent


for _tag, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)

_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_STRING, text, '"' if "\n" in text else None))


def read(text: str, where: str, *, is_file: bool = True) -> Document:
    """Parse one YAML document.

    Args:
        text: the document; an empty one is None.
        where: file or option, for messages.
        is_file: whether messages give the line too.

    Raises:
        ConfigError: not YAML, a duplicate key, a key that is not text, a number that is not finite, or a tag such as
            `!!python/object`.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:  # a character that YAML does not have
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark and is_file else where
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: nested too deeply") from None
    finally:
        loader.dispose()
    if root is None:
        return Document(None, {})
    lines: dict[Keys, int] = {}
    return Document(_Builder(where, is_file, lines).build(root, (), ()), lines)


def write_value(value: Any) -> str:
    """One plain value as YAML on one line; `read` gives the value back."""
    text = _dumped(value, allow_unicode=True)
    # Characters such as U+0085 are line breaks to YAML: written out they would not be read back.
    return text if text.isprintable() else _dumped(value, allow_unicode=False)


def _dumped(value: Any, *, allow_unicode: bool) -> str:
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=2**31, sort_keys=False, allow_unicode=allow_unicode
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


class _Builder:
    """Turns YAML nodes into plain values and notes the line of each."""

    def __init__(self, where: str, is_file: bool, lines: dict[Keys, int]) -> None:
        self._where = where
        self._is_file = is_file
        self._lines = lines

    def build(self, node: yaml.Node, path: Keys, parents: tuple[yaml.Node, ...]) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if any(node is parent for parent in parents):
            raise self._error(node, "an alias inside what it stands for; write the value out")
        inner = (*parents, node)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, path, inner)
        if isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
            return [self.build(item, (*path, str(index)), inner) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._error(node, f"tag {node.tag} is not allowed; remove it")

    def _mapping(self, node: yaml.MappingNode, path: Keys, parents: tuple[yaml.Node, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _STRING:
                raise self._error(key_node, "a key must be text; put it in quotes")
            if key in values:
                first = self._lines[(*path, key)]
                raise self._error(key_node, f"{'.'.join((*path, key))}: given twice, first in line {first}; remove one")
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            values[key] = self.build(value_node, (*path, key), parents)
        return values

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        if node.tag == _STRING:
            return text
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        try:
            if node.tag == _INT:
                return int(text.replace("_", ""), 16 if text.startswith("0x") else 10)
            if node.tag == _FLOAT:
                return _number(text)
        except ValueError:
            raise self._error(node, f"{text!r} is not a finite number") from None
        raise self._error(node, f"tag {node.tag} is not allowed; remove it")

    def _error(self, node: yaml.Node, message: str) -> ConfigError:
        place = f"{self._where}:{node.start_mark.line + 1}" if self._is_file else self._where
        return ConfigError(f"{place}: {message}")


def _number(text: str) -> int | float:
    """A float, or an int where an exponent makes a whole number (`1e6`), which float fields take as well."""
    plain = text.replace("_", "")
    value = float(plain)
    if not math.isfinite(value):
        raise ValueError("not finite")
    whole = "e" in plain.lower() and abs(value) < _EXACT_INTEGERS and value.is_integer()
    return int(value) if whole else value
