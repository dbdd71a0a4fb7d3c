"""`headrace bench scaling --quick`: calibrates, runs for real, compares, and predicts from the same file."""

from __future__ import annotations

import math

import pytest
import torch

from distributed import cli
from distributed.scaling.report import ScalingReport

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # starts a shard, Ray and a run in turn


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_config_is_measured_run_and_predicted(tmp_path, capsys):
    file, predicted = tmp_path / "here.json", tmp_path / "predicted.json"
    command = ["bench", "scaling", "cartpole_dqn", "--quick", "--json"]
    assert cli.main([*command, str(file), "--actors", "1"]) == 0
    report = ScalingReport.read(file)
    times = report.times
    assert times.vector_step_s > 0.0 and times.update_s > 0.0 and times.driver_report_s > 0.0
    assert times.record_bytes == 64 and times.weight_bytes > 4 * 128 * 128
    [check] = report.checks
    assert (check.measured.actors, check.measured.shards) == (1, 1)
    assert check.measured.env_steps_per_second > 0.0 and check.measured.cores_ours > 0.0
    assert math.isfinite(check.error) and ("Mean error" in (out := capsys.readouterr().out) or "fitted" in out)
    options = ["--simulate", "--actors", "1,8", "--calibration", str(file)]
    assert cli.main([*command, str(predicted), *options]) == 0
    assert ScalingReport.read(predicted).times == times
    assert "aturate" in capsys.readouterr().out
