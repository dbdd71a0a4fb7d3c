"""The checker itself, on histories made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fault.history import Call, HistoryFile, check_history, read_history

GOOD = [
    Call(0, 3, 0.0, 1.0, "ok"),
    Call(10, 2, 1.0, 2.0, "refused"),
    Call(20, 2, 2.0),
    Call(30, 1, 3.0, 4.0, "ok"),
]


@pytest.mark.parametrize("surfaced", [[], [20], [20, 21]])
def test_uncertain_records_may_be_there_or_not(surfaced):
    verdict = check_history(GOOD, np.array([30, 0, 1, 2, *surfaced]))
    assert verdict.valid
    assert (verdict.acknowledged, verdict.uncertain, verdict.surfaced) == (4, 2, len(surfaced))


@pytest.mark.parametrize(
    ("stored", "fault", "record"),
    [
        ([0, 1, 30], "lost", 2),
        ([0, 1, 2, 30, 30], "repeated", 30),
        ([0, 1, 2, 30, 20, 20], "repeated", 20),
        ([0, 1, 2, 30, 22], "unasked", 22),
        ([0, 1, 2, 30, 11], "undead", 11),
    ],
)
def test_each_kind_of_fault_is_named(stored, fault, record):
    verdict = check_history(GOOD, np.array(stored))
    assert not verdict.valid
    assert getattr(verdict, fault).tolist() == [record]
    assert fault in str(verdict)
    for other in {"lost", "repeated", "unasked", "undead"} - {fault}:
        assert len(getattr(verdict, other)) == 0


def test_only_what_was_certainly_not_overwritten_is_due():
    calls = [Call(0, 4, 0.0, 1.0, "ok"), Call(4, 4, 2.0, 3.0, "ok"), Call(8, 2, 2.5), Call(12, 4, 4.0, 5.0, "ok")]
    newest = np.arange(12, 16)
    assert check_history(calls, newest, capacity=6).valid  # 8 .. 9 may have come after 4 .. 7
    assert check_history(calls, newest, capacity=9).valid
    assert check_history(calls, newest, capacity=10).lost.tolist() == [4, 5, 6, 7]
    assert check_history(calls, newest, capacity=14).lost.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert check_history(calls, np.arange(4, 8), capacity=6).lost.tolist() == [12, 13, 14, 15]


def test_what_left_for_a_good_reason_may_be_missing():
    assert check_history(GOOD, np.array([0, 30]), removed=np.array([1, 2])).valid
    assert check_history(GOOD, np.array([0, 30]), removed=np.array([1])).lost.tolist() == [2]


def test_a_history_survives_its_writer_and_a_line_cut_off(tmp_path):
    path = tmp_path / "history"
    history = HistoryFile(path)
    for first in (0, 10, 20, 30):
        history.invoke(first, 5)
    history.note("for people")
    history.outcome("ok", [0, 10])
    history.outcome("refused", [20])
    path.write_bytes(path.read_bytes() + b'{"t": 1, "op": "ok", "fir')
    calls = {c.first: c for c in read_history(path)}
    assert [calls[i].outcome for i in (0, 10, 20, 30)] == ["ok", "ok", "refused", "unknown"]
    assert calls[0].start <= calls[0].end < float("inf") == calls[30].end
    assert read_history(tmp_path / "never written") == []
