"""The ladder as a person sees it: a table, a picture, and a line for what takes its time."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from actors.evaluator import Estimate
from actors.ladder import LadderRow
from distributed.ladder import as_json, draw_ladder, print_ladder
from distributed.stages import Stages

OURS = LadderRow("ours", 351.25, 2.0, 512, {"clicks": Estimate(61.5, 0.25)})
ROWS = [
    LadderRow("random", -186.25, 1.0, 512, {"clicks": Estimate(40.0, 0.5)}),
    OURS,
    LadderRow("exact optimum", 360.0, 3.5, 64, bound=True),
    LadderRow("worked out", 971.0, 0.0, 0, bound=True),
]


def test_the_table_has_errors_metrics_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    print_ladder(ROWS, OURS)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "policy         mean return  std error  episodes            clicks",
        "random              -186.2        1.0       512         40 +- 0.5",
        "ours                 351.2        2.0       512      61.5 +- 0.25  <--",
        "exact optimum        360.0        3.5        64                 -  bound",
        "worked out           971.0        0.0         -                 -  bound",
        "",
    ]
    print_ladder([], OURS)
    assert capsys.readouterr().out == ""


def test_json_has_the_same() -> None:
    rows = as_json(ROWS)
    assert [row["bound"] for row in rows] == [False, False, True, True]
    assert rows[1]["metrics"] == {"clicks": {"mean": 61.5, "sem": 0.25}}


def test_the_picture_is_of_all_rows(tmp_path: Path) -> None:
    for rows in (ROWS, ROWS[:2]):
        draw_ladder(rows, OURS, "a task", tmp_path / f"{len(rows)}.png")
    heights = [Image.open(tmp_path / f"{count}.png").height for count in (2, 4)]
    assert heights[1] > heights[0]


def test_without_matplotlib_the_module_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        draw_ladder(ROWS, OURS, "a task", tmp_path / "ladder.png")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_takes_its_time_is_said(terminal: bool) -> None:
    seen = io.StringIO()
    stages = Stages("evaluate", Console(file=seen, force_terminal=terminal, width=80))
    with stages.stage("measuring [random]"):
        pass
    stages.say("done")
    assert "evaluate: measuring [random]" in seen.getvalue() and "evaluate: done\n" in seen.getvalue()
