"""Draws the pictures of the environments' pages: one PNG for each module of `pictures/`, named after it.

    python benchmarks/pictures.py                 # all of them
    python benchmarks/pictures.py movie_pick      # these

A module has one function, `draw(path)`, which writes the PNG at `path`.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = sorted(path.stem for path in (HERE / "pictures").glob("*.py") if path.stem != "__init__")


def main() -> None:
    """Draw all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MODULES)}; default: all")
    parser.add_argument("--images", type=Path, default=HERE.parent / "docs" / "environments" / "images")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MODULES):
        parser.error(f"{', '.join(sorted(unknown))}: no such picture; there are {', '.join(MODULES)}")
    arguments.images.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or MODULES:
        path = arguments.images / f"{name}.png"
        importlib.import_module(f"pictures.{name}").draw(path)
        print(path)


if __name__ == "__main__":
    main()
