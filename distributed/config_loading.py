"""A config file and dotted command-line options into one tree of checked structs, with the source of each value."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import msgspec

from distributed import yaml_text
from distributed.config_types import FieldTypes, choices, dotted_names, field_types, sentence, struct_in, type_inside
from distributed.raw_config import Keys, Override, RawConfig
from replay_server.errors import ConfigError

__all__ = [
    "DEFAULT_CONFIG", "SHIPPED", "Loaded", "Override", "dump_yaml", "find_config", "install_hint", "load", "show",
]  # fmt: skip

T = TypeVar("T", bound=msgspec.Struct)

SHIPPED = Path(__file__).parent / "configs"
DEFAULT_CONFIG = "movie_pick_dqn"
"""Directory of the configs that come with headrace."""

_ALGORITHM = ("algorithm",)
_TRAIN_MODULES = ("ray", "torch", "gymnasium", "safetensors", "tensorboard", "PIL")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text (put it in quotes)",
    "array": "a list",
    "object": "a mapping",
}


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A complete config and where its values came from.

    Attributes:
        config: the struct tree.
        sources: dotted path -> `FILE:LINE` or `command line` for every value that was given; all else is default.
    """

    config: T
    sources: Mapping[str, str]


def find_config(name: str) -> Path:
    """The path of a config: a file that exists, or a shipped one by name (`cartpole_dqn`, with or without `.yaml`).

    Raises:
        ConfigError: neither; lists the shipped names.
    """
    path = Path(name)
    if path.is_file():
        return path
    bare = path.name.removesuffix(".yaml")
    if path.parent in (Path(), Path("distributed/configs")) and (SHIPPED / f"{bare}.yaml").is_file():
        return SHIPPED / f"{bare}.yaml"
    shipped = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
    problem = "is a directory, not a config file" if path.is_dir() else "no such file"
    raise ConfigError(f"{name}: {problem}{_did_you_mean(bare, shipped)}; shipped configs: {', '.join(shipped)}")


def load(
    root_type: type[T],
    path: Path | None,
    overrides: Sequence[Override] = (),
    algorithm_modules: Mapping[str, str] | None = None,
) -> Loaded[T]:
    """Read a config file, put the overrides in, and decode it.

    Args:
        root_type: the struct of the whole file.
        path: a YAML file, or None for nothing but defaults and overrides.
        overrides: later ones win over earlier ones and over the file.
        algorithm_modules: short name -> module of the struct that `algorithm.type` picks (any `module:Class` works as
            well); None for files without an algorithm.

    Raises:
        ConfigError: one line with file or option, field, what is wrong and what to do.
    """
    raw = RawConfig.read(path)
    for override in overrides:
        raw.put(override)
    sources = raw.sources()
    types = field_types(root_type)
    algorithm = raw.values.get("algorithm")
    if algorithm_modules is not None and isinstance(algorithm, dict) and "type" in algorithm:
        types["algorithm"] = _algorithm_type(raw, algorithm_modules)
        if "type" not in field_types(types["algorithm"]):
            del algorithm["type"]
    _refuse_unknown(raw, raw.values, types, ())
    if algorithm_modules is not None and types["algorithm"] is field_types(root_type)["algorithm"]:
        raise ConfigError(f"{raw.at((*_ALGORITHM, 'type'))}: missing; give one of {_offered(algorithm_modules)}")
    for field in msgspec.structs.fields(root_type):
        if field.required and field.name not in raw.values:
            raise ConfigError(_missing(raw, types, (field.name,)))
    parts = {name: _decode(raw, types, name, value) for name, value in raw.values.items()}
    try:
        return Loaded(root_type(**parts), sources)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{raw.where(())}: {_one_line(str(error))}") from None


def install_hint(module: str | None) -> str:
    """How to get a module that could not be imported."""
    package = module.partition(".")[0] if module else module
    if package == "matplotlib":
        return "pip install 'headrace[bench]'"
    return "pip install 'headrace[train]'" if package in _TRAIN_MODULES else f"pip install {package}"


def dump_yaml(config: msgspec.Struct) -> str:
    """The complete config as YAML that `load` reads back to an equal one."""
    return "".join(f"{row.text}\n" for row in _rows(config, ()))


def show(loaded: Loaded[Any]) -> str:
    """The complete config as YAML, each value with a comment: `[its source]`, then what the field means."""
    rows = _rows(loaded.config, ())
    width = min(max((len(row.text) for row in rows if row.is_value), default=0), 48)
    algorithm = getattr(loaded.config, "algorithm", None)
    lines = []
    for row in rows:
        if not row.is_value:
            lines.append(row.text)
            continue
        default = f"default of {_algorithm_name(algorithm)}" if row.keys[:1] == _ALGORITHM else "default"
        source = loaded.sources.get(".".join(row.keys), default)
        lines.append(f"{row.text:<{width}}  # [{source}] {row.sentence}".rstrip())
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Row:
    """One line of a written config: a value, or (`is_value` False) the name of a group."""

    keys: Keys
    text: str
    sentence: str
    is_value: bool


def _rows(value: Any, keys: Keys, meaning: str = "") -> list[_Row]:
    if isinstance(value, msgspec.Struct):
        types = field_types(type(value))
        items = {name: (getattr(value, name), sentence(types[name])) for name in types}
        if keys == _ALGORITHM and "type" not in types:
            items = {"type": (_algorithm_name(value), "module:Class of the algorithm."), **items}
    elif isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        items = {key: (inner, "") for key, inner in value.items()}
    else:
        text = yaml_text.write_value(msgspec.to_builtins(value, builtin_types=()))
        return [_Row(keys, f"{_indented_key(keys)}: {text}", meaning, True)]
    if not items:
        return [_Row(keys, f"{_indented_key(keys)}: {{}}", meaning, True)]
    head = [_Row(keys, f"{_indented_key(keys)}:", "", False)] if keys else []
    return head + [row for key, (inner, says) in items.items() for row in _rows(inner, (*keys, key), says)]


def _indented_key(keys: Keys) -> str:
    return "  " * (len(keys) - 1) + yaml_text.write_value(keys[-1])


def _algorithm_name(algorithm: Any) -> str:
    """What `algorithm.type` says, or would have to say, for this struct."""
    named: str | None = getattr(algorithm, "type", None)
    return named or f"{type(algorithm).__module__}:{type(algorithm).__qualname__}"


def _algorithm_type(raw: RawConfig, known: Mapping[str, str]) -> type[msgspec.Struct]:
    name = raw.get((*_ALGORITHM, "type"))
    where = raw.at((*_ALGORITHM, "type"))
    if not isinstance(name, str):
        raise ConfigError(f"{where}: must be text, not {yaml_text.write_value(name)}; give one of {_offered(known)}")
    if name not in known and ":" not in name:
        hint = _did_you_mean(name, list(known))
        raise ConfigError(f"{where}: no algorithm '{name}'{hint}; give one of {_offered(known)}")
    module, _, class_name = known.get(name, name).partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: no module '{module}'; start where it can be imported from") from None
        raise ConfigError(f"{where}: '{name}' needs {error.name}; {install_hint(error.name)}") from None
    except Exception as error:  # a user's module can fail in any way; the message says which
        raise ConfigError(f"{where}: importing '{module}' failed: {_one_line(repr(error))}") from error
    found = getattr(loaded, class_name, None) if class_name else _config_of(loaded, name)
    if not (isinstance(found, type) and issubclass(found, msgspec.Struct)):
        raise ConfigError(f"{where}: '{class_name}' in module '{module}' must be a msgspec.Struct class")
    return found


def _config_of(module: ModuleType, name: str) -> type[msgspec.Struct]:
    """The struct of a shipped algorithm: the one whose `type` is its own name."""
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, msgspec.Struct) and found.__module__ == module.__name__:
            defaults = {field.name: field.default for field in msgspec.structs.fields(found)}
            if defaults.get("type") == name:
                return found
    raise TypeError(f"{module.__name__} has no config struct with type = {name!r}")


def _offered(known: Mapping[str, str]) -> str:
    return f"{', '.join(sorted(known))} or module:Class"


def _decode(raw: RawConfig, types: FieldTypes, name: str, value: Any) -> Any:
    try:
        return msgspec.convert(value, types[name])
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        inside = re.findall(r"[A-Za-z_]\w*|\d+", place.partition("[...]")[0])
        raise ConfigError(_explain(raw, types, (name, *inside), text)) from None
    except ConfigError as error:  # a struct's own check, which cannot know the file
        raise ConfigError(f"{raw.where((name,))}: {error}") from None


def _explain(raw: RawConfig, types: FieldTypes, keys: Keys, text: str) -> str:
    """One line out of msgspec's message about the value at `keys`."""
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return _missing(raw, types, (*keys, missing[1]))
    annotation = _annotation_at(types, keys)
    value = yaml_text.write_value(raw.get(keys))
    if allowed := choices(annotation):
        what = f"must be one of {', '.join(allowed)}, not {value}{_did_you_mean(value, allowed)}"
    elif expected := re.fullmatch(r"Expected `([^`]+)`(?:, got `.*`|( .*))?", text):
        kinds = [_WORDS.get(kind, kind) for kind in expected[1].split(" | ")]
        what = f"must be {' or '.join(kinds)}{expected[2] or ''}, not {value}"
    else:
        what = _one_line(text)
    meaning = f" ({sentence(annotation)})" if sentence(annotation) else ""
    return f"{raw.at(keys)}: {what}{meaning}"


def _missing(raw: RawConfig, types: FieldTypes, keys: Keys) -> str:
    meaning = sentence(_annotation_at(types, keys))
    return f"{raw.at(keys)}: missing; set it{f' ({meaning})' if meaning else ''}"


def _annotation_at(types: FieldTypes, keys: Keys) -> Any:
    annotation = types[keys[0]]
    for key in keys[1:]:
        annotation = type_inside(annotation, key)
    return annotation


def _refuse_unknown(raw: RawConfig, values: Any, types: FieldTypes, keys: Keys) -> None:
    """Raise for the first key that no struct has a field for, however deep."""
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        here = (*keys, key)
        if key not in types:
            raise ConfigError(f"{raw.at(here)}: unknown key{_nearest(key, types, keys)}")
        struct = struct_in(types[key])
        if struct is not None:
            _refuse_unknown(raw, value, field_types(struct), here)
        elif (inner := struct_in(type_inside(types[key], ""))) is not None and isinstance(value, list):
            for index, item in enumerate(value):
                _refuse_unknown(raw, item, field_types(inner), (*here, str(index)))


def _nearest(key: str, types: FieldTypes, keys: Keys) -> str:
    """The field most like `key`: one of this group, or one further down that was meant without its group's name."""
    by_last = {name.rpartition(".")[2]: name for name in reversed(list(dotted_names(types)))}
    if close := get_close_matches(key, list(by_last), n=1):
        return f"; did you mean {'.'.join((*keys, by_last[close[0]]))}?"
    return f"; valid here: {', '.join(types)}"


def _did_you_mean(word: str, words: list[str]) -> str:
    close = get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
