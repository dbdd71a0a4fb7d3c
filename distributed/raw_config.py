"""A config before it is checked: a file's plain values with command-line options put in, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import yaml_text
from replay_server.errors import ConfigError

Keys = yaml_text.Keys
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Override:
    """One dotted option of the command line: `--algorithm.learning-rate 3e-4`."""

    keys: Keys
    value: Any

    @property
    def flag(self) -> str:
        """The option in one spelling."""
        return "--" + ".".join(self.keys)

    @staticmethod
    def parse(name: str, text: str) -> Override:
        """From a dotted name (leading dashes dropped, inner ones mean underscores) and a value in YAML.

        Raises:
            ConfigError: the name has an empty part, or the value is not YAML.
        """
        keys = tuple(name.removeprefix("--").replace("-", "_").split("."))
        if not all(keys):
            raise ConfigError(f"{name}: not a dotted option; write it as --section.key VALUE")
        return Override(keys, yaml_text.read(text, name, is_file=False).values)


class RawConfig:
    """Plain values by key, changed in place by `put`."""

    def __init__(self, path: Path | None, document: yaml_text.Document) -> None:
        self.values: dict[str, Any] = document.values
        self._path = path
        self._lines = document.lines
        self._overrides: list[Override] = []

    @staticmethod
    def read(path: Path | None) -> RawConfig:
        """Read a YAML file; None and an empty file mean no values.

        Raises:
            ConfigError: no such file, not UTF-8 text, not YAML, or not a mapping.
        """
        if path is None:
            return RawConfig(None, yaml_text.Document({}, {}))
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8 text; is this a YAML file?") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot read it: {error.strerror}; check the path") from None
        document = yaml_text.read(text, str(path))
        if document.values is None:
            document = yaml_text.Document({}, {})
        if not isinstance(document.values, dict):
            raise ConfigError(f"{path}: not a mapping; a config is made of `key: value` lines")
        return RawConfig(path, document)

    def put(self, override: Override) -> None:
        """Set one value, making the groups on its way.

        Raises:
            ConfigError: something on the way is a value, not a group.
        """
        group = self.values
        for depth, key in enumerate(override.keys[:-1], start=1):
            if group.get(key) is None:
                group[key] = {}
            group = group[key]
            if not isinstance(group, dict):
                name = ".".join(override.keys[:depth])
                raise ConfigError(f"{override.flag}: {name} is a single value here and has no keys; set {name} itself")
        group[override.keys[-1]] = override.value
        self._overrides.append(override)

    def get(self, keys: Keys) -> Any:
        """The value at keys; list items are named by their index."""
        value: Any = self.values
        for key in keys:
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value

    def at(self, keys: Keys) -> str:
        """How a message about one field begins: `FILE:LINE: section.key` or `--section.key`."""
        where, name = self.where(keys), ".".join(keys)
        return where if where == f"--{name}" else f"{where}: {name}"

    def where(self, keys: Keys) -> str:
        """The option that set this value; otherwise file and line, with the options that changed values inside it."""
        if (override := self._override_of(keys)) is not None:
            return override.flag
        inside = [o.flag for o in self._overrides if o.keys[: len(keys)] == keys]
        if self._path is None:
            return ", ".join(inside) or COMMAND_LINE
        known = next((keys[:n] for n in range(len(keys), 0, -1) if keys[:n] in self._lines), None)
        place = str(self._path) if known is None else f"{self._path}:{self._lines[known]}"
        return f"{place} with {', '.join(inside)}" if inside else place

    def sources(self) -> dict[str, str]:
        """Dotted path of each value given -> `FILE:LINE` or `command line`."""
        found: dict[str, str] = {}
        self._collect(self.values, (), found)
        return found

    def _collect(self, value: Any, keys: Keys, found: dict[str, str]) -> None:
        if isinstance(value, dict) and (value or not keys):
            for key, inner in value.items():
                self._collect(inner, (*keys, key), found)
        elif self._path is not None and self._override_of(keys) is None:
            found[".".join(keys)] = f"{self._path.name}:{self._lines[keys]}"
        else:
            found[".".join(keys)] = COMMAND_LINE

    def _override_of(self, keys: Keys) -> Override | None:
        """The last option that set this value or a group around it."""
        return next((o for o in reversed(self._overrides) if keys[: len(o.keys)] == o.keys), None)
