"""`headrace bench replay --quick` with real shards and a small peer: every row is there, with a figure or a reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distributed import cli
from distributed.bench import peers
from distributed.bench.peers import PeerProcess, peers_from, workload_settings
from distributed.bench.report import Report
from distributed.bench.rows import ROWS
from distributed.bench.workload import Workload
from replay_server.errors import WorkerDied

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PEER = """\
from peer import Operation, Peer, serve

def make(work):
    print("libraries print things")
    assert work.batch == 512 and work.chunks()[0]["observation"].shape == (work.chunk, work.dim)
    return Peer({name: Operation(lambda: work.batch) for name in ("insert", "sample", "cycle")}, 7, {"version": "1.0"})

serve(make)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench")
    command = [sys.executable, ROOT / "headrace.py", "bench", "replay", "--quick", "--json", directory / "r.json"]
    done = subprocess.run([*command, "--directory", directory], capture_output=True, text=True, timeout=280)
    return done, directory


def test_it_ends_well_and_prints_every_row(run):
    done, _ = run
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for row in ROWS:
        assert any(line.startswith(f"{row.name} ") for line in lines), row.name


def test_the_file_has_every_row_with_a_figure_or_a_reason(run):
    _, directory = run
    report = Report.read(directory / "r.json")
    assert [line.name for line in report.lines] == [row.name for row in ROWS]
    for line in report.lines:
        assert (line.figure is None) != (line.missing is None), line
        if line.figure is not None:
            assert line.figure.low > 0.0, line
        assert all(c.missing == "not asked for" for c in line.comparisons)
    measured = {line.name for line in report.lines if line.figure is not None}
    assert {"grpc-insert-8", "grpc-sample-8", "grpc-cycle-8", "in-process-sample-8", "bytes-per-record"} <= measured
    assert report.quick and report.machine.cores >= 1 and report.limits["memcpy-1MB"].median > 0.0


def test_the_draws_over_two_shards_are_exact(run):
    _, directory = run
    [line] = [line for line in Report.read(directory / "r.json").lines if line.name == "shards-chi-square"]
    assert line.passed, line


def test_priority_updates_arrive(run):
    _, directory = run
    [line] = [line for line in Report.read(directory / "r.json").lines if line.name == "grpc-cycle-8"]
    details = line.details
    reported = details["updates_applied"] + details["updates_stale"]
    on_the_way = details["updates_sent"] - reported  # reported with batches asked for ahead
    assert details["updates_applied"] > 0 and 0 <= on_the_way <= 72 * 512


def test_nothing_is_left_in_the_directory(run):
    _, directory = run
    assert [path.name for path in directory.iterdir()] == ["r.json"]


def test_the_table_of_a_file(run, capsys):
    _, directory = run
    assert cli.main(["bench", "table", str(directory / "r.json")]) == 0
    text = capsys.readouterr().out
    assert all(f"| {row.title} | {row.transport} |" in text for row in ROWS)
    assert "too small and too short to judge by" in text


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A directory of peers with one of our own, `small`."""
    (tmp_path / "peers").mkdir()
    shutil.copy(ROOT / "benchmarks" / "peers" / "peer.py", tmp_path / "peers")
    (tmp_path / "peers" / "small.py").write_text(PEER)
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path / "peers")
    return tmp_path / "peers"


def test_a_peer_is_measured_in_its_own_process(programs):
    with PeerProcess(
        "small", peers_from([f"small={sys.executable}"])["small"], workload_settings(Workload("8", 4096), 1.0), 4.0
    ) as peer:
        assert peer.facts == {"ready": True, "holds": 7, "version": "1.0"}
        assert peer.measure("sample")(0.02) > 512
        assert peer.measure("cycle")(0.02) > 512


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('no such library')", "small: no such library"),
        (PEER.replace("print(", "raise OSError("), "small: OSError: libraries print things"),
    ],
)
def test_a_peer_that_does_not_start_says_why(programs, code, says):
    (programs / "small.py").write_text(code)
    with pytest.raises(WorkerDied, match=says):
        PeerProcess("small", Path(sys.executable), workload_settings(Workload("8", 4096), 1.0), 4.0)


def test_a_peer_without_its_library_costs_only_its_own_figures(programs, tmp_path, capsys):
    (programs / "reverb.py").write_text("raise SystemExit('no module named reverb')")
    (programs / "cpprb.py").write_text(PEER)
    arguments = ["bench", "replay", "--quick", "--rows", "grpc-sample-8", "--json", str(tmp_path / "r.json")]
    assert cli.main([*arguments, "--peer", f"reverb={sys.executable}", f"--peer=cpprb={sys.executable}"]) == 0
    [line] = Report.read(tmp_path / "r.json").lines
    reverb, cpprb, *others = line.comparisons
    assert (reverb.figure, reverb.missing) == (None, "reverb: no module named reverb")
    assert cpprb.missing is None and cpprb.ratio is not None
    assert line.figure is not None and {other.missing for other in others} == {"not asked for"}
    assert "reverb: no module named reverb" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench"], "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`"),
        (["bench", "pipeline"], "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`"),
        (["bench", "learner", "--rows", "dqn-65"], "--rows: dqn-65: no such row; did you mean dqn-64"),
        (["bench", "table"], "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`"),
        (
            ["bench", "replay", "r.json"],
            "bench: needs `replay`, `learner`, `broadcast`, `scaling [CONFIG]` or `table FILE`",
        ),
        (["bench", "table", "none.json"], "none.json: cannot read it"),
        (["bench", "replay", "--rows", "grpc-sampel-8"], "--rows: grpc-sampel-8: no such row; did you mean grpc-sa"),
        (["bench", "replay", "--row", "x"], "--row: unknown option; did you mean --rows?"),
        (["bench", "replay", "--peer", "python3"], "--peer: python3: must be NAME=PYTHON, NAME one of cpprb, reverb"),
        (["bench", "replay", "--peer", "peer=python3"], "--peer: peer=python3: must be NAME=PYTHON"),
        (["bench", "replay", "--peer", "cpprb=/nowhere/python"], "--peer: cpprb: /nowhere/python: no such program"),
        (["bench", "replay", "--json", "no/such/r.json"], "--json: no/such/r.json: cannot be written"),
        (["bench", "replay", "--directory", "none"], "--directory: none: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("headrace: error: ") and says in line
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_plain_json(run):
    _, directory = run
    document = json.loads((directory / "r.json").read_text())
    assert set(document["lines"][0]) >= {"name", "transport", "unit", "figure", "target", "limit_figure", "passed"}
    assert set(document["lines"][0]["figure"]) == {"samples", "median", "low", "high"}


def test_one_shard_is_not_compared_with_itself(capsys):
    assert cli.main(["bench", "replay", "--shards", "1"]) == 2
    assert "give 2 or more" in capsys.readouterr().err
