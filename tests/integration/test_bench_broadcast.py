"""`headrace bench broadcast --quick` with a small peer: every point is there, with its ratio."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distributed import cli
from distributed.bench import broadcast, peers
from distributed.bench.broadcast_report import BroadcastReport, Staleness
from distributed.bench.staleness import staleness
from replay_server.errors import WorkerDied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PEER = """\
import json, sys

assert json.loads(sys.argv[1]) == {"actors": 1}
print(json.dumps({"ready": True, "RLlib": "0.0"}), flush=True)
for line in sys.stdin:
    word, size, actors, versions = line.split()
    latency = [3000.0] * (int(actors) * int(versions))
    print(json.dumps({"latency_ms": latency, "publish_ms": [1.0] * int(versions), "bytes": int(size)}), flush=True)
"""
STALE = Staleness("cartpole_dqn", 2, 4.0, 6.0, 700.0, 120.0, median=3.0, mean=2.5, most=9.0)


def test_every_point_is_measured_beside_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "rllib.py").write_text(PEER)
    monkeypatch.setattr(peers, "PROGRAMS", tmp_path / "peers")
    monkeypatch.setattr(broadcast.BroadcastBench, "_most_of_peer", 1)
    monkeypatch.setattr(broadcast, "staleness", lambda name, actors, seconds: STALE)
    file = tmp_path / "b.json"
    assert cli.main(["bench", "broadcast", "--quick", "--json", str(file), f"--peer=rllib={sys.executable}"]) == 0
    report = BroadcastReport.read(file)
    assert [(point.bytes_, point.actors) for point in report.points] == [
        (100_000, 1), (100_000, 2), (1_000_000, 1), (1_000_000, 2),
    ]  # fmt: skip
    for point in report.points:
        assert point.ours is not None, point
        assert 0.0 < point.ours.p50_ms.low <= point.ours.p50_ms.median <= point.ours.p99_ms.high < 60_000.0
        assert point.ours.publish_ms.median > 0.0 and point.limit_ms > 0.0
        if point.actors > 1:  # more than the peer can have
            assert point.peer is None and point.ratio is None
            assert point.peer_missing == "not asked above 1: half a gigabyte each"
            continue
        assert point.peer is not None and point.ratio is not None and point.peer_bytes == point.bytes_
        assert point.ratio.samples == tuple(3000.0 / ours for ours in point.ours.p50_ms.samples)
    printed = capsys.readouterr().out
    assert printed.count(" x |") == 2 and printed.count("not asked above 1") == 2 and "**no** (median <= 2)" in printed
    assert cli.main(["bench", "table", str(file)]) == 0
    assert capsys.readouterr().out == printed


def test_a_peer_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "broadcast", f"--peer=sb3={sys.executable}"]) == 2
    assert "sb3: has no weights to send" in capsys.readouterr().err


RUN = """\
#!{python}
import json, sys
from pathlib import Path

config, directory = Path(sys.argv[4]).read_text(), Path(sys.argv[sys.argv.index("--run-dir") + 1])
Path({written!r}).write_text(config)
if "MoviePick" in config:
    sys.exit("headrace: error: no room")
directory.mkdir()
result = {{"staleness": {{"median": 1, "mean": 1.5, "max": 4.0}}, "wall_seconds": 10.0, "weights_version": 80}}
(directory / "result.json").write_text(json.dumps(result | {{"env_steps_per_second": 7.0, "updates_per_second": 9.0}}))
"""


def test_staleness_is_what_a_run_of_so_many_actors_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, written = tmp_path / "python", tmp_path / "written"
    program.write_text(RUN.format(python=sys.executable, written=str(written)))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = staleness("cartpole_dqn", 2, 10.0)
    assert (found.median, found.most, found.versions_per_second, found.holds) == (1, 4.0, 8.0, True)
    assert "count: 2" in written.read_text() and "max_seconds: 10.0" in written.read_text()
    with pytest.raises(WorkerDied, match="a run failed: headrace: error: no room"):
        staleness("movie_pick_dqn", 2, 10.0)
