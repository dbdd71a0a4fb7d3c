"""What all pictures of the docs have in common."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LIGHT, DARK, WARM, GREY = "#8fb3d9", "#1f4e8c", "#d98c3f", "#b5b5b5"


def plain(axes: Axes) -> None:
    """A light grid and no frame at the top and the right."""
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG and close the figure."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=90)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(48).save(path, optimize=True)
