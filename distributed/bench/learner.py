"""`headrace bench learner`: what one update costs, beside the same mathematics in bare torch and beside peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distributed.bench.halves import Halves, Whole
from distributed.bench.json_report import check_writable
from distributed.bench.machine import Machine
from distributed.bench.notebook import Measure, Notebook, rate
from distributed.bench.peers import PeerProcess, workload_settings
from distributed.bench.replay import ScreenProgress
from distributed.bench.report import Report, line_of, plain
from distributed.bench.rows import Rival, Row
from distributed.bench.updates import ACTIONS, OBSERVATION, POOL, TAU, columns, learner_and_batches
from distributed.bench.workload import BATCH, Workload

UPDATES = "updates/s"
HALVES = "-halves"
"""What the names of rows end with where two processes learn."""

_RATE = 1e-3

LEARNER_ROWS = (
    Row("dqn-64", "DQN, 2 x 64", "CPU", UPDATES, rivals=(Rival("bare", "dqn", "64", 0.9), Rival("sb3", "dqn", "64"))),
    Row("dqn-256", "DQN, 2 x 256", "CPU", UPDATES,
        rivals=(Rival("bare", "dqn", "256", 0.9), Rival("sb3", "dqn", "256"))),
    Row("double-64", "Double DQN, 2 x 64", "CPU", UPDATES, rivals=(Rival("bare", "double", "64", 0.9),)),
    Row("double-256", "Double DQN, 2 x 256", "CPU", UPDATES, rivals=(Rival("bare", "double", "256", 0.9),)),
    Row("dqn-256-halves", "DQN, 2 x 256, halves in two processes", "CPU", UPDATES,
        rivals=(Rival("one", "dqn", "256"),)),
    Row("dqn-1024-halves", "DQN, 2 x 1024, halves in two processes", "CPU", UPDATES,
        rivals=(Rival("one", "dqn", "1024"),)),
    Row("td3-64", "TD3, 2 x 64", "CPU", UPDATES, rivals=(Rival("sb3", "td3", "64", 1.5),)),
    Row("td3-256", "TD3, 2 x 256", "CPU", UPDATES, rivals=(Rival("sb3", "td3", "256"),)),
)  # fmt: skip


@dataclass(frozen=True)
class LearnerBench:
    """One run, on one thread a process.

    Ours learns from drawn batches with priorities, importance weights, clipping and the guard against values that are
    not finite; `one` is ours in one process, beside a row of several. `bare` is the same network and loss with fused
    Adam and a soft target, and none of these. Peers learn from batches drawn before, too: no replay takes part.

    Args:
        rows: what to measure.
        quick: short times, to see that everything runs.
        json: file for the raw figures.
        peers: interpreter of each peer.
    """

    rows: tuple[Row, ...] = LEARNER_ROWS
    quick: bool = False
    json: Path | None = None
    peers: dict[str, Path] = field(default_factory=dict)

    def run(self) -> int:
        """Measure, print the table, write the file; 0 also when targets are missed or rows could not be measured.

        Raises:
            ConfigError: the file cannot be written.
        """
        check_writable(self.json)
        torch.set_num_threads(1)
        repetitions, seconds = (2, 0.05) if self.quick else (9, 1.0)
        machine, began, begin = Machine.here(), time.gmtime(), time.monotonic()
        with ScreenProgress() as progress:
            book = Notebook(self.rows, repetitions, seconds, progress)
            self._measure(book)
        own = {row.name for row in self.rows}
        report = Report(
            machine=machine,
            began=time.strftime("%Y-%m-%d %H:%M", began),
            took_s=round(time.monotonic() - begin, 1),
            quick=self.quick,
            repetitions=repetitions,
            sample_s=seconds,
            records={},
            lines=tuple(line_of(row, book) for row in self.rows),
            limits={},
            others={name: figure for name, figure in book.figures.items() if name not in own},
            details=book.details,
        )
        print(plain(report.lines), end="")
        if self.json is not None:
            report.write(self.json)
        return 0

    def _measure(self, book: Notebook) -> None:
        """Each row and its rivals in turn."""
        processes: dict[str, PeerProcess] = {}
        work = Workload(str(OBSERVATION), BATCH * POOL)
        try:
            for name, python in self.peers.items():
                rivals = [rival for row in self.rows for rival in row.rivals if rival.peer == name]
                with book.trying([rival.name for rival in rivals]):
                    processes[name] = PeerProcess(name, python, workload_settings(work, 1.0), 4.0)
                    book.detail(name, **processes[name].facts)
            for row in self.rows:
                if row.name.endswith(HALVES):
                    _halves(row, book)
                    continue
                contenders = {row.name: _ours(row.name)}
                for rival in row.rivals:
                    if rival.peer == "bare":
                        contenders[rival.name] = _bare(rival)
                    elif rival.peer in processes:
                        operation = f"{rival.operation}-{rival.workload}"
                        contenders[rival.name] = processes[rival.peer].measure(operation)
                book.alternate(contenders)
        finally:
            for process in processes.values():
                process.close()


def _halves(row: Row, book: Notebook) -> None:
    """Two processes and one, in turn, and what an update costs each in processor time."""
    [rival] = row.rivals
    one = Whole(rival.operation, int(rival.workload))
    with Halves(rival.operation, int(rival.workload)) as two:
        book.alternate({row.name: two.measure, rival.name: one.measure})
        book.detail(row.name, processor_ms_of_each=two.processor_ms, processor_ms_of_one=one.processor_ms)


def _ours(name: str) -> Measure:
    kind, _, units = name.partition("-")
    learner, drawn = learner_and_batches(kind, int(units))
    pool = cycle(drawn)

    def step() -> int:
        learner.step(next(pool))
        return 1

    return lambda seconds: rate(step, seconds)


def _network(units: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(OBSERVATION, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, ACTIONS)
    )


def _bare(rival: Rival) -> Measure:
    rng = np.random.default_rng(0)
    pool = cycle([{k: torch.from_numpy(v) for k, v in columns(rng, False).items()} for _ in range(POOL)])
    step = _bare_step(int(rival.workload), double=rival.operation == "double")

    def counted() -> int:
        step(next(pool))
        return 1

    return lambda seconds: rate(counted, seconds)


def _bare_step(units: int, *, double: bool) -> Callable[[dict[str, Tensor]], None]:
    """One update as short as torch lets it be written."""
    online, target = _network(units), _network(units)
    target.load_state_dict(online.state_dict())
    target.requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=_RATE, fused=True)
    ours: list[Tensor] = list(online.parameters())
    theirs: list[Tensor] = list(target.parameters())

    def step(t: dict[str, Tensor]) -> None:
        with torch.no_grad():
            q_t = target(t["next_observation"])
            choice = (online(t["next_observation"]) if double else q_t).argmax(dim=1, keepdim=True)
            target_tm1 = t["reward"] + t["discount"] * q_t.gather(1, choice).squeeze(1)
        q_tm1 = online(t["observation"]).gather(1, t["action"].unsqueeze(1)).squeeze(1)
        loss = nn.functional.smooth_l1_loss(q_tm1, target_tm1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(theirs, ours, TAU)

    return step
