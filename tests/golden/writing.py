"""What every generator of golden values shares: fixed random inputs, and the JSON file that comes of them.

A generator runs in an environment of its own and knows nothing of headrace: it imports this file, numpy and a package.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def case(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """One call: what went in, what came out; arrays become nested lists of float64 or int."""
    return {"inputs": _lists(inputs), "outputs": _lists(outputs)}


def write(name: str, packages: tuple[str, ...], cases: Mapping[str, dict[str, Any]]) -> None:
    """Write `NAME.json` beside this file: a line for each case, so that a difference shows which one changed."""
    made_by = {package: version(package) for package in (*packages, "numpy")} | {"python": platform.python_version()}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in cases.items()]
    text = f'{{"made_by": {json.dumps(made_by)}, "cases": {{\n' + ",\n".join(lines) + "\n}}\n"
    (Path(__file__).parent / f"{name}.json").write_text(text)


def value_batch(rng: np.random.Generator, batch: int = 7, actions: int = 4) -> dict[str, np.ndarray]:
    """Values, actions, rewards, discounts (two records end an episode) and unequal weights of B records."""
    discount_t = rng.uniform(0.8, 1.0, batch)
    discount_t[[1, 4]] = 0.0
    return {
        "q_tm1": rng.normal(size=(batch, actions)) * 2.0,
        "a_tm1": rng.integers(0, actions, batch),
        "r_t": rng.normal(size=batch),
        "discount_t": discount_t,
        "q_t": rng.normal(size=(batch, actions)) * 2.0,
        "q_t_selector": rng.normal(size=(batch, actions)) * 2.0,
        "weights": rng.uniform(0.1, 1.0, batch),
    }


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | list | dict) else _list(value) for name, value in values.items()
    }


def _list(value: Any) -> Any:
    array = np.asarray(value)
    return (array.astype(np.float64) if array.dtype.kind == "f" else array).tolist()
