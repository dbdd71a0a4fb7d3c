"""`--seeds N`: runs side by side in one directory, summed up after each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed.cli import main

_TINY = [
    "train", "cartpole_dqn", "--runtime", "serial", "--algorithm.hidden-sizes", "[8]", "--run.total-env-steps", "600",
    "--replay.min-size", "100", "--evaluation.every-env-steps", "0", "--evaluation.final-episodes", "4",
]  # fmt: skip


def test_every_seed_has_its_directory_and_all_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_TINY, "--run.seed", "5", "--seeds", "2", "--run-dir", str(tmp_path / "runs")]) == 0
    document = json.loads((tmp_path / "runs" / "result.json").read_text())
    assert [result["seed"] for result in document["seeds"]] == [5, 6]
    means = [result["evaluation"]["mean"] for result in document["seeds"]]
    assert means[0] != means[1]
    assert document["evaluation"]["mean"] == pytest.approx(sum(means) / 2)
    assert (document["evaluation"]["min"], document["evaluation"]["max"]) == (min(means), max(means))
    for seed in (5, 6):
        alone = json.loads((tmp_path / "runs" / f"seed-{seed}" / "result.json").read_text())
        assert alone == document["seeds"][seed - 5]
    assert "2 seeds: mean return" in capsys.readouterr().out

    assert main([*_TINY, "--seeds", "2", "--run-dir", str(tmp_path / "runs")]) == 2
    assert main(["train", "--resume", str(tmp_path / "runs")]) == 2
    assert "seed-5" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_new_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*_TINY, "--run-dir", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--run.total-env-steps", "900"]) == 0
    assert json.loads((run / "result.json").read_text())["env_steps"] >= 900
    assert main(["train", "--resume", str(run), "--run.total-env-steps", "1200"]) == 0
    assert "total_env_steps: 1200" in (run / "config.yaml").read_text()
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0


def test_a_resumed_run_keeps_its_number_of_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([*_TINY, "--run-dir", str(run)]) == 0
    arguments = ["--replay.shards", "2", "--actors.count", "2"]
    assert main(["train", "--resume", str(run), *arguments, "--run.total-env-steps", "900"]) == 2
    assert "replay.shards is 2" in capsys.readouterr().err
