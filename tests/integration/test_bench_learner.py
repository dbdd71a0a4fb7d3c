"""`headrace bench learner --quick` with a small peer: every row is there, with its ratios."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from distributed import cli
from distributed.bench import peers
from distributed.bench.learner import LEARNER_ROWS
from distributed.bench.report import Report

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PEER = """\
from peer import Operation, Peer, serve

def make(work):
    assert (work.batch, work.dim) == (512, 8)
    names = ("dqn-64", "dqn-256", "td3-64", "td3-256")
    return Peer({name: Operation(lambda: 1) for name in names}, 0, {"version": "1.0"})

serve(make)
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    (tmp_path / "peers").mkdir()
    shutil.copy(ROOT / "benchmarks" / "peers" / "peer.py", tmp_path / "peers")
    (tmp_path / "peers" / "sb3.py").write_text(PEER)
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path / "peers")
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def test_every_row_has_a_figure_and_its_ratios(programs, capsys):
    file = programs / "r.json"
    assert cli.main(["bench", "learner", "--quick", "--json", str(file), f"--peer=sb3={sys.executable}"]) == 0
    lines = Report.read(file).lines
    assert [line.name for line in lines] == [row.name for row in LEARNER_ROWS]
    for line in lines:
        assert line.figure is not None and line.figure.low > 0.0, line
        assert all(comparison.ratio is not None for comparison in line.comparisons), line
        assert (line.passed is None) == all(comparison.factor is None for comparison in line.comparisons)
    printed = capsys.readouterr().out
    assert all(any(text.startswith(row.name) for text in printed.splitlines()) for row in LEARNER_ROWS)
    assert cli.main(["bench", "table", str(file)]) == 0
    table = capsys.readouterr().out
    assert all(f"| {row.title} | CPU |" in table for row in LEARNER_ROWS)


def test_without_the_peer_its_figures_alone_are_missing(programs):
    file = programs / "r.json"
    assert cli.main(["bench", "learner", "--quick", "--rows", "dqn-64", "--json", str(file)]) == 0
    [line] = Report.read(file).lines
    bare, sb3 = line.comparisons
    assert bare.ratio is not None and (sb3.figure, sb3.missing) == (None, "not asked for")
