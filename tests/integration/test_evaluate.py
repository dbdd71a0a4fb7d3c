"""`headrace evaluate`: episodes, metrics, ladder and picture of a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from distributed.cli import main

_TINY = [
    "train", "movie_pick_dqn", "--runtime", "serial", "--algorithm.hidden-sizes", "[8]", "--run.total-env-steps",
    "1000", "--replay.min-size", "100", "--environment.num-envs", "16", "--evaluation.every-env-steps", "0",
    "--evaluation.final-episodes", "8", "--environment.max-episode-steps", "10",
]  # fmt: skip


def test_periodic_evaluations_tell_episode_metrics(tmp_path: Path) -> None:
    command = [*_TINY]
    command[command.index("--evaluation.every-env-steps") + 1] = "500"
    assert main([*command, "--run-dir", str(tmp_path / "run"), "--evaluation.episodes", "4"]) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(last["evaluation"]["metrics"]) == {"clicks", "completions"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["periodic_evaluations"][-1]["metrics"] == last["evaluation"]["metrics"]


def test_the_ladder_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert main([*_TINY, "--run-dir", str(run)]) == 0
    trained = json.loads((run / "result.json").read_text())["evaluation"]
    assert set(trained["metrics"]) == {"clicks", "completions"}
    assert "myopic oracle" in capsys.readouterr().out

    assert main(["evaluate", str(run), "--episodes", "8", "--json", "--baselines"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert {name: document[name] for name in trained} == trained  # the final evaluation's own episodes
    rows = document["ladder"]
    assert [row["mean"] for row in rows] == sorted(row["mean"] for row in rows)
    ours = next(row for row in rows if row["name"] == "ours")
    assert ours["mean"] == trained["mean"] and ours["metrics"] == trained["metrics"]
    assert "measuring random" in said.err and "ladder.png" in said.err
    assert Image.open(run / "ladder.png").width > 300

    (run / "ladder.png").unlink()
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["evaluate", str(run), "--episodes", "2", "--baselines"]) == 0
    said = capsys.readouterr()
    assert "; clicks " in said.out and "<--" in said.out
    assert "pip install 'headrace[bench]'" in " ".join(said.err.split())
    assert not (run / "ladder.png").exists()
