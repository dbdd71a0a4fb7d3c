"""Every algorithm has a page of one form, and the commands that the docs show can be typed as they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import gymnasium
import pytest

import actors.envs  # noqa: F401  registers the ids
from distributed.arguments import Grammar, parse
from distributed.config_loading import find_config
from distributed.loading import load_experiment, shipped_algorithms

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ["Differences from the paper", "Settings", "Metrics", "Run it", "Measured"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", shipped_algorithms())
def test_every_algorithm_has_a_page_with_the_same_sections_at_its_end(name: str) -> None:
    text = (ROOT / "docs" / "algorithms" / f"{name}.md").read_text()
    assert re.findall(r"(?m)^## (.*)$", text)[-len(SECTIONS) :] == SECTIONS


def test_every_environment_has_a_page() -> None:
    overview = (ROOT / "docs" / "environments" / "README.md").read_text()
    for name in (name for name in gymnasium.registry if name.startswith("headrace/")):
        row = re.search(rf"(?m)^\|.*`{name}`.*\]\((\w+\.md)\)", overview)
        assert row is not None, name
        assert name in (ROOT / "docs" / "environments" / row[1]).read_text()


def unbroken(page: Path) -> str:
    """Its text, with lines that a backslash breaks put together."""
    return page.read_text().replace("\\\n", " ")


def commands() -> list[str]:
    """`headrace train ...` of all pages, of shipped configs; others name files of the reader's own."""
    found = {line.strip() for page in PAGES for line in re.findall(r"headrace train( [^`#\n]*)", unbroken(page))}
    own = (".yaml", "my_", "--resume")
    return sorted(line for line in found if line and not any(word in line for word in own))


@pytest.mark.parametrize("command", commands())
def test_commands_name_configs_and_settings_that_there_are(command: str) -> None:
    arguments = parse(shlex.split(command), Grammar(("[CONFIG]",), ("run-dir", "seeds"), settings=True))
    load_experiment(find_config(arguments.positionals[0]), arguments.overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_whole_configs_can_be_loaded(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", page.read_text()):
        if "algorithm:" in block:
            (tmp_path / "shown.yaml").write_text(block)
            load_experiment(tmp_path / "shown.yaml", ())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+\.md)(?:#([^)]*))?\)", page.read_text()):
        path = page.parent / target[0]
        assert path.exists(), target
        headings = re.findall(r"(?m)^#+ (.*)$", path.read_text())
        anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not target[1] or target[1] in anchors, target
