"""Loading an experiment's config file with overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distributed.build import ALGORITHMS
from distributed.config import ExperimentConfig
from distributed.config_loading import Loaded, Override, load


def load_experiment(path: Path, overrides: Sequence[Override]) -> Loaded[ExperimentConfig]:
    """A complete experiment config.

    Raises:
        ConfigError: one line naming file or option, field and remedy.
    """
    return load(ExperimentConfig, path, overrides, ALGORITHMS)
