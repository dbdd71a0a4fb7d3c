"""Splitting a command line into arguments, options and dotted config settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from distributed.raw_config import Override
from replay_server.errors import ConfigError


@dataclass(frozen=True)
class Grammar:
    """What one command takes.

    Args:
        positionals: names of the arguments it takes at most, in order, for messages; a last one that ends in `...` may
            be repeated.
        valued: options with a value, without dashes.
        switches: options without one.
        repeated: options with a value that may be given several times.
        settings: whether `--section.key VALUE` is taken.
    """

    positionals: tuple[str, ...] = ()
    valued: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    settings: bool = False


@dataclass
class Arguments:
    """A command line taken apart."""

    positionals: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    lists: dict[str, list[str]] = field(default_factory=dict)
    overrides: list[Override] = field(default_factory=list)

    def path(self, option: str) -> Path | None:
        """The value of an option that names a file or directory."""
        return Path(self.options[option]) if option in self.options else None

    def count(self, option: str, default: int) -> int:
        """The value of an option that counts something.

        Raises:
            ConfigError: it is not a whole number of at least 1.
        """
        text = self.options.get(option, str(default))
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise ConfigError(f"--{option}: must be a whole number >= 1, not {text!r}")
        return int(text)


@dataclass(frozen=True)
class Command:
    """One command: what it does with its arguments, returning the exit code; what it takes; and what --help says."""

    run: Callable[[Arguments], int]
    grammar: Grammar
    help: str


def parse(tokens: Sequence[str], grammar: Grammar) -> Arguments:
    """Take a command line apart; values follow as the next word or after `=`.

    Raises:
        ConfigError: an unknown or doubled option, a missing value, too many arguments.
    """
    found = Arguments()
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("-") or token == "-":
            _positional(token, grammar, found)
            continue
        flag, equals, value = token.partition("=")
        name = flag.removeprefix("--")
        if name in grammar.switches and flag.startswith("--"):
            if equals:
                raise ConfigError(f"{flag}: takes no value")
            found.switches.add(name)
            continue
        _refuse_unknown(flag, name, grammar)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag}: needs a value, as in {flag} VALUE")
            value = rest.pop(0)
        if name in grammar.repeated:
            found.lists.setdefault(name, []).append(value)
        elif name not in grammar.valued:
            found.overrides.append(Override.parse(flag, value))
        elif name in found.options:
            raise ConfigError(f"{flag}: given twice; give it once")
        else:
            found.options[name] = value
    return found


def _positional(token: str, grammar: Grammar, found: Arguments) -> None:
    repeats = bool(grammar.positionals) and grammar.positionals[-1].endswith("...")
    if len(found.positionals) >= len(grammar.positionals) and not repeats:
        wanted = f"takes {' '.join(grammar.positionals)} only" if grammar.positionals else "takes no arguments"
        raise ConfigError(f"unexpected argument {token!r}: the command {wanted}; settings are --section.key VALUE")
    found.positionals.append(token)


def _refuse_unknown(flag: str, name: str, grammar: Grammar) -> None:
    if not flag.startswith("--"):
        raise ConfigError(f"{flag}: unknown option; options begin with two dashes")
    if name in (*grammar.valued, *grammar.repeated) or (grammar.settings and "." in name):
        return
    close = get_close_matches(name, [*grammar.valued, *grammar.repeated, *grammar.switches], n=1, cutoff=0.75)
    if grammar.settings and not close:
        return  # a setting without a section, such as --runtime; the config knows its own names
    hint = f"; did you mean --{close[0]}?" if close else "; see --help"
    dotted = " (settings are written --section.key VALUE, for example --run.seed 1)" if grammar.settings else ""
    raise ConfigError(f"{flag}: unknown option{hint}{dotted}")
