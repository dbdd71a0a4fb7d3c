"""Loading an experiment's config file with overrides."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from pathlib import Path

import learners.algorithms
from distributed.config import ExperimentConfig
from distributed.config_loading import Loaded, Override, load


def load_experiment(path: Path, overrides: Sequence[Override]) -> Loaded[ExperimentConfig]:
    """A complete experiment config.

    Raises:
        ConfigError: one line naming file or option, field and remedy.
    """
    return load(ExperimentConfig, path, overrides, shipped_algorithms())


def shipped_algorithms() -> dict[str, str]:
    """Short name -> module: every file in `learners/algorithms` is the algorithm of its name."""
    package = learners.algorithms
    return {found.name: f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)}
