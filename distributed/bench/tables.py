"""The table of whatever a benchmark wrote."""

from __future__ import annotations

from pathlib import Path

from distributed.bench import broadcast_report, report
from distributed.bench.broadcast_report import BroadcastReport
from distributed.bench.report import Report
from replay_server.errors import ConfigError


def table(path: Path) -> str:
    """As Markdown.

    Raises:
        ConfigError: the file is not what `bench replay`, `learner` or `broadcast` wrote.
    """
    try:
        return report.markdown(Report.read(path))
    except ConfigError as error:
        try:
            return broadcast_report.markdown(BroadcastReport.read(path))
        except ConfigError:
            raise error from None
