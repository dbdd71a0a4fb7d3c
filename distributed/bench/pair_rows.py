"""Rows that compare one kind of serving with another: shards, durability."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from distributed.bench.clients import closing, cycling, fill, inserting, open_replay, sampling, with_cost
from distributed.bench.figure import Figure
from distributed.bench.notebook import Measure, Notebook
from distributed.bench.rows import GRPC
from distributed.bench.shards import ServedShard, served
from distributed.bench.workload import ALPHA, BATCH, Workload, random_priorities

_BINS = 256
_DRAWS_A_BIN = 4096
_FLUSH_S = 60.0


def measure_shards(book: Notebook, work: Workload, directory: Path | None, many: int) -> None:
    """So many shards against one that holds as much, measured in turn."""
    names = book.wants("shards-sample", "shards-cycle")
    with ExitStack() as stack, book.trying(names):
        if not names:
            return
        contenders: dict[str, Measure] = {}
        for count in (1, many):
            shards = stack.enter_context(served(work, directory, shards=count))
            fill(shards, work)
            for name in names:
                replay = closing(stack, open_replay(shards, work, GRPC))
                label = f"{name}-{count}"
                contenders[label] = sampling(replay) if name == "shards-sample" else cycling(replay, work, book, label)
        _compare(book, contenders, {name: (f"{name}-{many}", f"{name}-1") for name in names})
        for name in names:
            book.detail(name, shards=many)


def measure_chi_square(book: Notebook, work: Workload, directory: Path | None) -> None:
    """Chi-square of draws against exact masses, over two shards one of which has four times the priorities."""
    names = book.wants("shards-chi-square")
    with ExitStack() as stack, book.trying(names):
        if not names:
            return
        shards = stack.enter_context(served(work, directory, shards=2))
        masses = _fill_bins(shards, work)
        replay = closing(stack, open_replay(shards, work, GRPC))
        book.progress.show("shards-chi-square")
        drawn, draws = np.zeros(_BINS), min(_BINS * _DRAWS_A_BIN, 64 * work.records)
        while drawn.sum() < draws:
            drawn += np.bincount(replay.sample(BATCH).columns["action"], minlength=_BINS)
        expected = masses / masses.sum() * drawn.sum()
        chi_square = float(((drawn - expected) ** 2 / expected).sum())
        book.write("shards-chi-square", Figure.of([chi_square / (_BINS - 1)]))
        book.detail("shards-chi-square", draws=int(drawn.sum()), bins=_BINS)


def measure_durability(book: Notebook, work: Workload, directory: Path | None) -> None:
    """Inserts at each level of durability, in turn."""
    names = book.wants("journal-insert", "fsync-insert")
    with ExitStack() as stack, book.trying(names):
        if not names:
            return
        contenders: dict[str, Measure] = {}
        for level in ("checkpoint", "journal", "fsync"):
            with book.trying([f"insert-{level}"]):
                shards = stack.enter_context(served(work, directory, durability=level))
                replay = closing(stack, open_replay(shards, work, GRPC, prefetch=0))
                label = f"insert-{level}"
                contenders[label] = with_cost(inserting(replay, work, level), shards, book, label, BATCH)
        pairs = {name: (f"insert-{name.split('-')[0]}", "insert-checkpoint") for name in names}
        _compare(book, contenders, pairs)


def _compare(book: Notebook, contenders: dict[str, Measure], pairs: dict[str, tuple[str, str]]) -> None:
    """Measure in turn and write down ratios."""
    book.alternate(contenders)
    for name, (ours, other) in pairs.items():
        for label in (ours, other):
            if label in book.missing:
                book.miss(name, book.missing[label])
        if ours in book.figures and other in book.figures:
            book.write(name, book.figures[ours].over(book.figures[other]))
            book.detail(name, **{label: book.figures[label].median for label in (ours, other)})


def _fill_bins(shards: list[ServedShard], work: Workload) -> np.ndarray:
    """Fill two shards with records whose action names a bin of their shard; returns float64[_BINS] masses."""
    masses, half = np.zeros(_BINS), _BINS // 2
    rng = np.random.default_rng(work.seed)
    with open_replay(shards, work, GRPC, prefetch=0) as replay:
        for index in range(2):
            writer = replay.writer(shard=index)
            for start in range(0, work.records // 2, work.chunk):
                rows = min(work.chunk, work.records // 2 - start)
                bins = index * half + rng.integers(0, half, rows)
                priorities = random_priorities(rng, rows) * (1.0, 4.0)[index]
                columns = {name: column[:rows] for name, column in work.chunks[0].items()}
                writer.append({**columns, "action": bins}, priorities, timeout_s=_FLUSH_S)
                masses += np.bincount(bins, priorities**ALPHA, minlength=_BINS)
            writer.flush(timeout_s=_FLUSH_S)
    return masses
