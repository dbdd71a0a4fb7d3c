"""The serial runtime: same seed, same bytes; stop and resume change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.runs import changed, digest, experiment, play

from distributed.run_directory import RunDirectory


@pytest.mark.parametrize(
    ("environment_id", "num_envs", "extra"),
    [
        ("headrace/MoviePick10-v0", 16, {}),
        ("LunarLander-v3", 4, {}),
        ("LunarLander-v3", 4, {"normalise_observations": True, "normalise_rewards": True}),
    ],
)
def test_stop_and_resume_give_the_same_bytes(
    tmp_path: Path, environment_id: str, num_envs: int, extra: dict[str, Any]
) -> None:
    config = experiment(environment_id, num_envs, **extra)
    whole = play(config, tmp_path / "whole")
    play(config, tmp_path / "again")
    assert whole["updates"] > 150
    assert digest(tmp_path / "again") == digest(tmp_path / "whole")

    looks = 25 if num_envs == 16 else 95
    interrupted = play(config, tmp_path / "halves", looks=looks)
    assert interrupted["stopped_by"] == "interrupt" and 2_000 < interrupted["env_steps"] < 4_000
    scheduled = [d for d in RunDirectory(tmp_path / "halves").complete_checkpoints() if _scheduled(d)]
    resumed = play(config, tmp_path / "halves", checkpoint=scheduled[-1])
    assert resumed["env_steps"] == whole["env_steps"]
    assert digest(tmp_path / "halves") == digest(tmp_path / "whole")
    assert resumed["evaluation"] == whole["evaluation"]
    assert [evaluation["env_steps"] for evaluation in whole["periodic_evaluations"]][-1] == whole["env_steps"]
    assert without_clock(resumed) == without_clock(whole) and len(without_clock(whole)) >= 3
    seconds = [evaluation["seconds"] for evaluation in whole["periodic_evaluations"]]
    assert seconds == sorted(seconds) and seconds[-1] <= whole["wall_seconds"] + 2.0


def without_clock(result: Any) -> list[tuple[float, ...]]:
    """The curve of a run: steps, mean and standard error of each periodic evaluation."""
    return [(row["env_steps"], row["mean"], row["sem"]) for row in result["periodic_evaluations"]]


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    config = experiment("headrace/MoviePick10-v0", 16)
    play(config, tmp_path / "a")
    play(changed(config, run={"seed": 4}), tmp_path / "b")
    first, second = digest(tmp_path / "a"), digest(tmp_path / "b")
    assert all(first[name] != second[name] for name in first if name != "step")


def _scheduled(directory: Path) -> bool:
    return bool(json.loads((directory / "manifest.json").read_text())["scheduled"])
