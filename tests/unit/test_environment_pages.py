"""What the pages of the simulated users show as Python is run, and parts of one's own are put in by their path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.log_users import random_users

from actors.environments import EnvironmentConfig, make_vector_env

PAGES = Path(__file__).resolve().parents[2] / "docs" / "environments"
PARTS = {
    "MoviePick10": ("movie_pick", "response", "Novelty"),
    "ProtoAction": ("proto_action", "response", "Clicks"),
    "NewsSession": ("news_session", "click_model", "TopHeavy"),
    "NextItem": ("next_item", "response", "Anything"),
    "SlateMNL": ("slate", "choice_model", "FirstPlace"),
    "LogUsers": ("log_users", "click_model", "MyClicks"),
}


def blocks(page: str) -> list[str]:
    return re.findall(r"(?ms)^```python\n(.*?)^```", (PAGES / f"{page}.md").read_text())


@pytest.mark.parametrize("task", PARTS)
def test_parts_that_a_page_shows_can_be_used(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, setting, name = PARTS[task]
    [shown] = [block for block in blocks(page) if f"class {name}" in block]
    (tmp_path / f"shown_on_{page}.py").write_text(shown)
    random_users().save(tmp_path / "users.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    kwargs: dict[str, Any] = {"model": "users.npz"} if task == "LogUsers" else {}
    env_id = f"headrace/{task}-v0"
    env = make_vector_env(EnvironmentConfig(id=env_id, kwargs={**kwargs, setting: f"shown_on_{page}:{name}"}), 50)
    usual = make_vector_env(EnvironmentConfig(id=env_id, kwargs=kwargs), 50)
    for each in (env, usual):
        each.reset(seed=0)
        each.action_space.seed(0)
    rewards = np.array([[each.step(each.action_space.sample())[1] for each in (env, usual)] for _ in range(10)])
    assert np.isfinite(rewards).all() and (rewards[:, 0] != rewards[:, 1]).any()


def test_what_the_other_blocks_do_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [block for block in blocks("news_session") if "compare(" in block]
    exec(compile(block, "news_session.md", "exec"), {})
    preference, p_value = map(float, capsys.readouterr().out.split())
    assert preference == pytest.approx(0.69, abs=0.01) and p_value < 1e-40  # as the page says
