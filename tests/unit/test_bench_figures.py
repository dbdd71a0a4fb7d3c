"""The arithmetic of the benchmark, and what it says about rows without a figure."""

import pytest

from distributed.bench.figure import Figure
from distributed.bench.notebook import Notebook, rate
from distributed.bench.report import Report, line_of, markdown, plain
from distributed.bench.rows import BATCHES, GRPC, RECORDS, ROWS, Rival, Row, chosen
from replay_server.errors import ConfigError, Unavailable


class Silence:
    def show(self, text):
        pass


def a_notebook(*rows, repetitions=3):
    return Notebook(rows, repetitions, 0.001, Silence())


def test_a_figure_is_the_median_with_its_range():
    figure = Figure.of([3.0, 1.0, 10.0, 2.0])
    assert (figure.median, figure.low, figure.high, figure.samples) == (2.5, 1.0, 10.0, (3.0, 1.0, 10.0, 2.0))


def test_a_ratio_pairs_samples_in_the_order_they_were_taken():
    # the machine halved its speed after the first pair: the ratio of medians would be 2.5, that of pairs is 2
    ratio = Figure.of([8.0, 4.0, 5.0]).over(Figure.of([4.0, 2.0, 1.0]))
    assert (ratio.samples, ratio.median) == ((2.0, 2.0, 5.0), 2.0)


@pytest.mark.parametrize("other", [[1.0], [1.0, 0.0]])
def test_no_ratio_without_pairs_or_over_zero(other):
    with pytest.raises(ValueError, match="pairs"):
        Figure.of([1.0, 2.0]).over(Figure.of(other))


def test_an_empty_figure_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Figure.of([])


def test_contenders_take_turns_and_a_failing_one_only_loses_its_own_figure():
    book, calls = a_notebook(), []

    def good(seconds):
        calls.append("good")
        return float(len(calls))

    def bad(seconds):
        calls.append("bad")
        raise Unavailable("gone\nfor good")

    book.alternate({"a": good, "b": bad, "c": good})
    assert calls == ["good", "bad", "good", "good", "good", "good", "good"]
    assert book.figures["a"].samples == (1.0, 4.0, 6.0) and book.figures["c"].samples == (3.0, 5.0, 7.0)
    assert "b" not in book.figures and book.missing == {"b": "gone for good"}


def test_a_contender_that_fails_later_has_no_figure_of_fewer_samples():
    book, turns = a_notebook(), iter([1.0, 2.0])
    book.alternate({"short": lambda seconds: next(turns)})
    assert not book.figures and "StopIteration" in book.missing["short"]


def test_an_error_of_a_part_is_the_reason_of_all_its_missing_rows_and_of_no_other():
    book = a_notebook()
    book.write("there", Figure.of([1.0]))
    with book.trying(["there", "lost"]):
        raise ZeroDivisionError("oh")
    assert book.missing == {"lost": "ZeroDivisionError: oh"}


def test_a_rate_counts_neither_the_warm_up_nor_less_than_what_is_finished():
    steps, finished = 0, []

    def step():
        nonlocal steps
        steps += 1
        return 7

    measured = rate(step, 0.02, lambda: finished.append(steps))
    warm, total = finished
    assert 0 < warm < total
    assert 0 < measured <= 7 * (total - warm) / 0.02


ROW = Row("r", "title", GRPC, RECORDS, 100.0, limit="floor", rivals=(Rival("reverb", "sample", "8", 2.0),))


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"), [(120.0, 60.0, True), (90.0, 10.0, False), (120.0, 61.0, False), (120.0, None, True)]
)
def test_a_row_holds_when_its_target_and_every_factor_do(ours, theirs, passed):
    book = a_notebook(ROW)
    book.write("r", Figure.of([ours]))
    if theirs is not None:
        book.write("reverb-sample-8", Figure.of([theirs]))
    line = line_of(ROW, book)
    assert line.passed is passed
    assert (line.comparisons[0].missing is None) == (theirs is not None)


def test_batches_are_compared_with_the_records_of_peers():
    row = Row("r", "title", GRPC, BATCHES, rivals=(Rival("cpprb", "sample", "8"),))
    book = a_notebook(row)
    book.write("r", Figure.of([10.0]))
    book.write("cpprb-sample-8", Figure.of([512.0]))
    assert line_of(row, book).comparisons[0].ratio.median == 10.0


def test_a_ceiling_holds_from_below():
    row = Row("r", "title", GRPC, "ms", 50.0, at_most=True)
    assert [row.holds(value) for value in (49.0, 50.0, 51.0)] == [True, True, False]


def test_a_missing_figure_has_no_verdict_and_says_why():
    book = a_notebook(ROW)
    book.miss("r", Unavailable("no such transport"))
    line = line_of(ROW, book)
    assert (line.passed, line.figure, line.missing) == (None, None, "no such transport")
    assert "not measured: no such transport" in plain([line])


def test_rows_are_chosen_by_pattern():
    assert [row.name for row in chosen(["shards-*", "grpc-sample-8"])] == [
        "grpc-sample-8",
        "shards-sample",
        "shards-cycle",
        "shards-chi-square",
    ]
    assert chosen([]) == ROWS


def test_an_unknown_row_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match="grpc-sampel-8: no such row; did you mean grpc-sample-8"):
        chosen(["shm-*", "grpc-sampel-8"])


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_what_is_no_report_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read it"):
        Report.read(tmp_path / "none.json")
    (tmp_path / "some.json").write_text('{"lines": 3}')
    with pytest.raises(ConfigError, match="not what headrace bench replay or learner --json wrote"):
        Report.read(tmp_path / "some.json")


def test_a_table_row_shows_figure_target_limit_and_peer(tmp_path):
    from distributed.bench.machine import Machine

    book = a_notebook(ROW)
    book.write("r", Figure.of([1_234_567.0, 1_000_000.0, 2_000_000.0]))
    book.write("floor", Figure.of([9e6]))
    book.write("reverb-sample-8", Figure.of([1000.0, 1000.0, 1000.0]))
    report = Report(Machine.here(), "now", 1.0, False, 3, 1.0, {"8": 4}, (line_of(ROW, book),), {}, {}, {})
    path = tmp_path / "r.json"
    report.write(path)
    [row] = [line for line in markdown(Report.read(path)).splitlines() if line.startswith("| title")]
    assert row == (
        "| title | gRPC | 1,230,000 records/s (1,000,000 - 2,000,000) | >= 100 records/s | 9,000,000 "
        "| reverb 1,000: 1,230 x (>= 2 x) | yes |"
    )
