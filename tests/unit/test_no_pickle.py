"""Nothing that headrace reads can run code: no module reads or writes pickles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickling(source: str) -> list[str]:
    """What in a module's source reads or writes pickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                found += [alias.name for alias in names if alias.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                found.append(module)
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as name):
                found.append(f"torch.{name}")
            case ast.keyword(arg="allow_pickle", value=ast.Constant(False)):
                pass
            case ast.keyword(arg="allow_pickle"):
                found.append("allow_pickle")
    return found


def test_no_module_of_ours_touches_pickles() -> None:
    files = [ROOT / "headrace.py"]
    for package in ("replay_server", "learners", "actors", "distributed"):
        files += sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 100
    assert {str(file): found for file in files if (found := pickling(file.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "torch.load(path)",
        "read = torch.load",
        "np.load(path, allow_pickle=True)",
        "numpy.savez(path, a, allow_pickle=allowed)",
    ],
)
def test_the_check_sees_pickles(source: str) -> None:
    assert pickling(source)
