"""The image: versions are those of constraints.txt, what is copied exists, and nothing runs as root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distributed.cluster.pins import constraints, image, unpinned

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and arguments, with continued lines put together and comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [
        (line.split()[0], line.partition(" ")[2]) for line in lines.replace("\\\n", " ").splitlines() if line.strip()
    ]


def problems(text: str) -> list[str]:
    """What is wrong with a Dockerfile of ours."""
    pinned, found = constraints(), []
    lines = instructions(text)
    for name, arguments in lines:
        if name == "FROM":
            found += [problem.text for problem in image("FROM", arguments, pinned)]
        elif name == "RUN":
            found += [problem.text for problem in unpinned("RUN", arguments, pinned)]
        elif name == "COPY":
            found += [f"{source} is not there" for source in arguments.split()[:-1] if not sent(source)]
        elif name == "ADD":
            found.append("ADD fetches and unpacks; use COPY")
    users = [arguments for name, arguments in lines if name == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        found.append("runs as root")
    return found


def sent(source: str) -> bool:
    """Whether the builder gets a file: it is there and .dockerignore, which names what may pass, lets it."""
    return (ROOT / source).exists() and f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_dockerfile_is_right() -> None:
    assert problems((ROOT / "Dockerfile").read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("python:3.11.14-slim-bookworm", "python", "tomorrow"),
        ("python:3.11.14-slim-bookworm", "python:latest", "tomorrow"),
        ("torch==2.13.0", "torch", "torch has no version"),
        ("torch==2.13.0", "torch==2.12.0", "torch is ==2.12.0"),
        ("COPY learners learners", "COPY lerners learners", "lerners is not there"),
        ("COPY learners learners", "COPY tests tests", "tests is not there"),
        ("COPY learners learners", "ADD learners learners", "use COPY"),
        ("USER 1000:1000", "", "runs as root"),
        ("USER 1000:1000", "USER 0:0", "runs as root"),
    ],
)
def test_mistakes_in_it_are_found(old: str, new: str, words: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert old in text
    assert any(words in problem for problem in problems(text.replace(old, new)))


def test_it_can_copy_checkpoints_elsewhere() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert any("--editable '.[train,cluster,metrics,remote]'" in arguments for _, arguments in instructions(text))
    taken_in = text.replace("# RUN pip", "RUN pip")
    assert taken_in.count("s3fs==") == taken_in.count("gcsfs==") == 1 and problems(taken_in) == []


def test_the_packages_of_the_project_are_all_copied() -> None:
    copied = {
        source
        for name, rest in instructions((ROOT / "Dockerfile").read_text())
        if name == "COPY"
        for source in rest.split()
    }
    packages = {re.sub(r"\*$", "", name) for name in re.findall(r'"(\w+\*)"', (ROOT / "pyproject.toml").read_text())}
    assert packages and packages <= copied
