"""What docs/runbook.md and docs/operations.md name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distributed.arguments import parse
from distributed.cli import COMMANDS
from distributed.config import ExperimentConfig
from distributed.config_types import dotted_names, field_types
from learners.algorithms.dqn import DQNConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text() for name in ("runbook.md", "operations.md")]
FIELDS = {*dotted_names(field_types(ExperimentConfig)), *dotted_names(field_types(DQNConfig), "algorithm.")}


@pytest.mark.parametrize("page", PAGES, ids=["runbook", "operations"])
def test_every_setting_is_one(page: str) -> None:
    named = set(
        re.findall(r"`((?:replay|actors|learner|run|ray|environment|algorithm|evaluation)\.[a-z_]+)[:` ]", page)
    )
    assert named and named - FIELDS == set()


@pytest.mark.parametrize("page", PAGES, ids=["runbook", "operations"])
def test_every_command_is_one(page: str) -> None:
    """As far as the command line goes: names and options."""
    commands = re.findall(r"headrace (train|status|cluster|bench)((?: (?:--?)?[\w.:/-]+)*)", page.replace("\n", " "))
    assert commands
    for name, rest in commands:
        words = [word for word in rest.split() if word.isupper() or word[0] in "-/" or not word.isalpha()]
        if not words or "--" not in rest:
            continue
        parse(re.findall(r"\S+", rest), COMMANDS[name].grammar)


def test_links_of_the_runbook_lead_somewhere() -> None:
    page = PAGES[0]
    headings = {
        re.sub(r"[^a-z -]", "", line[3:].lower()).replace(" ", "-") for line in page.splitlines() if line[:3] == "## "
    }
    for target in re.findall(r"\]\(([^)]+)\)", page):
        file, _, anchor = target.partition("#")
        assert (DOCS / file).exists() if file else anchor in headings, target
