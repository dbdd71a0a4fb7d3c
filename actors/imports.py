"""Loads what a user names in the config, from installed packages or the working directory."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from replay_server.errors import ConfigError


def import_user_module(name: str, field: str) -> ModuleType:
    """Import a module; the working directory counts as its last place to look.

    Args:
        name: dotted module name.
        field: config field to name in errors.

    Raises:
        ConfigError: there is no such module, or it raised while being imported.
    """
    directory = os.getcwd()
    if directory not in sys.path and "" not in sys.path:
        sys.path.append(directory)  # stays: the module's own imports may come later
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"{field}: no module {error.name}; install it, or start headrace in the directory that holds it"
            ) from error
        raise ConfigError(
            f"{field}: {name} needs {error.name}, which is not installed; run pip install {error.name}"
        ) from error
    except Exception as error:  # any error of the user's own code
        text = " ".join(str(error).split())
        raise ConfigError(f"{field}: importing {name} raised {type(error).__name__}: {text}") from error


def import_object(path: str, field: str) -> Any:
    """The object at `package.module:Name` or `package.module.Name`.

    Raises:
        ConfigError: no such module or name in it.
    """
    module_name, colon, name = path.partition(":")
    if not colon:
        module_name, _, name = path.rpartition(".")
    if not module_name or not name:
        raise ConfigError(f"{field}: {path!r} is not of the form package.module:Class")
    module = import_user_module(module_name, field)
    try:
        return getattr(module, name)
    except AttributeError:
        nearest = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{field}: {module_name} has no {name}{hint}") from None


def make_part(given: Any, field: str, methods: Sequence[str], /, **arguments: Any) -> Any:
    """A part that a user may replace: an object as it is, or one made of a class.

    Args:
        given: the object, its class, or `package.module:Class`.
        field: setting to name in errors.
        methods: that the part needs.
        arguments: what classes are called with, in this order; the names are for errors.

    Raises:
        ConfigError: no such class, it does not take the arguments, or what it makes lacks a method.
    """
    made = import_object(given, field) if isinstance(given, str) else given
    name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
    if isinstance(given, str | type):
        try:
            made = made(*arguments.values())
        except TypeError as error:
            wanted = f"with ({', '.join(arguments)})" if arguments else "without arguments"
            raise ConfigError(f"{field} {name}: {error}; the class is called {wanted}") from error
    for method in methods:
        if not callable(getattr(made, method, None)):
            raise ConfigError(f"{field}: {name} has no method {method}; give a class that has {', '.join(methods)}")
    return made
