"""How many user steps a second the environments make on one core, and what a step costs as users and catalogues grow.

    python benchmarks/environments.py --json benchmarks/results/environments.json \
        --image docs/environments/images/throughput.png [--only NAME ...] [--peer recsim=PYTHON]
    python benchmarks/environments.py --table benchmarks/results/environments.json

Random actions through the vector environment, resets included; processor time of this process, so that what else runs
on the machine counts less. In the same run `plain_users/` simulates the same users one at a time in plain Python, and
RecSim 0.2.4, where an interpreter that has it is named, its own interest evolution. A task is added by a line in CASES.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
from provenance import provenance

import actors.envs  # noqa: F401  registers the ids

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
USERS = (100, 1_000, 4_096, 16_384, 65_536, 262_144, 1_000_000)
CALLS = (4_096, 65_536)  # users a call between which the best counts
FREE_SHARE = 0.5  # of the memory that is free, which one environment may take


@dataclass(frozen=True)
class Case:
    """One environment as it is measured.

    Attributes:
        id: Gymnasium's.
        kwargs: of the environment.
        floor: user steps a second that one core has to make, for calls of 4,096 to 65,536 users; 0 for none stated.
        plain: module of `plain_users/` that simulates the same, or None.
        most_users: more are not measured.
        catalogue: the kwarg that says how large the catalogue is, and sizes of it, measured with 4,096 users.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    floor: float = 0.0
    plain: str | None = None
    most_users: int = USERS[-1]
    catalogue: tuple[str, tuple[int, ...]] | None = None


IDS = {"obs_mode": "ids"}
ITEMS = {"actions": "items", **IDS}
CASES = {
    "movie_pick": Case("headrace/MoviePick10-v0", IDS, 1e6, "movie_pick", catalogue=("films", (10, 100, 1_000))),
    "next_item": Case("headrace/NextItem-v0", {}, 1e6, "next_item", catalogue=("items", (1_000, 10_000, 100_000))),
    "news_session": Case(
        "headrace/NewsSession-v0", IDS, 1e6, "news_session", catalogue=("articles", (1_000, 10_000, 100_000))
    ),
    "slate_mnl": Case(
        "headrace/SlateMNL-v0", IDS, 5e5, "slate", catalogue=("documents", (1_000, 10_000, 100_000, 1_000_000))
    ),
    "slate_cascade": Case("headrace/SlateCascade-v0", IDS, 5e5),
    "proto_action": Case(
        "headrace/ProtoAction-v0", ITEMS, 5e5, "proto_action", catalogue=("items", (10_000, 100_000, 1_000_000))
    ),
    "proto_action_snapped": Case(
        "headrace/ProtoAction-v0", IDS, 6e4, most_users=65_536, catalogue=("items", (1_000, 10_000, 100_000))
    ),
    "topk_toy": Case("headrace/TopKToy-v0"),
}


def speed(env: Any, seconds: float) -> float:
    """User steps a second of processor time, over at least `seconds` of it."""
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(2)]
    env.step(actions[0])
    steps, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        for action in actions:
            env.step(action)
        steps += len(actions)
    return steps * env.num_envs / spent


def plain_speed(module: str, seconds: float) -> float:
    """The same of a plain loop."""
    play = importlib.import_module(f"plain_users.{module}").play
    play(500, 0)
    steps, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        play(2_000, steps)
        steps += 2_000
    return steps / spent


def measure(case: Case, users: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """All figures of one case; numbers of users stop where memory would."""
    report: dict[str, Any] = {"id": case.id, "kwargs": case.kwargs, "floor": case.floor, "users": [], "catalogue": []}
    bytes_a_user = 0.0
    for count in users:
        if count > case.most_users or bytes_a_user * count > FREE_SHARE * free_bytes():
            break
        before = resident_bytes()
        env = make(case, count, {})
        report["users"].append({"users": count, "user_steps_per_second": speed(env, seconds)})
        if count >= CALLS[0]:
            bytes_a_user = max(bytes_a_user, (resident_bytes() - before) / count)
        print(f"  {count:>9,} users a call: {report['users'][-1]['user_steps_per_second']:>12,.0f} user steps/s")
    if case.catalogue is not None:
        name, sizes = case.catalogue
        for size in sizes:
            rate = speed(make(case, CALLS[0], {name: size}), seconds)
            report["catalogue"].append({name: size, "user_steps_per_second": rate})
            print(f"  {size:>9,} {name}: {rate:>12,.0f} user steps/s")
    if case.plain is not None:
        report["plain"] = plain_speed(case.plain, seconds)
        print(f"  plain Python: {report['plain']:>12,.0f} user steps/s")
    return report


def make(case: Case, users: int, more: dict[str, Any]) -> Any:
    """The vector environment."""
    return gymnasium.make_vec(case.id, users, vectorization_mode="vector_entry_point", **{**case.kwargs, **more})


def best(report: dict[str, Any]) -> float | None:
    """The fastest with 4,096 to 65,536 users a call."""
    rates = [row["user_steps_per_second"] for row in report["users"] if CALLS[0] <= row["users"] <= CALLS[1]]
    return max(rates, default=None)


def free_bytes() -> float:
    """Memory that may be taken without swapping."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024.0


def resident_bytes() -> float:
    """Memory that this process holds."""
    return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def recsim_speed(python: str, seconds: float) -> dict[str, Any]:
    """What `peers/recsim.py` prints under the interpreter that has RecSim."""
    script = Path(__file__).parent / "recsim_speed.py"
    done = subprocess.run([python, str(script), str(seconds)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(kept: dict[str, Any]) -> str:
    """The figures as Markdown."""
    heads = ["environment", "4,096 users a call", "16,384", "65,536", "1,000,000", "asked for", "plain Python", "ratio"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, report in kept["environments"].items():
        rates = {row["users"]: row["user_steps_per_second"] for row in report["users"]}
        cells = [_amount(rates.get(users)) for users in (4_096, 16_384, 65_536, 1_000_000)]
        plain, fastest = report.get("plain"), best(report)
        ratio = f"{fastest / plain:.0f} x" if plain and fastest else "-"
        floor = _amount(report["floor"]) if report["floor"] else "-"
        lines.append(f"| {' | '.join([f'`{name}`', *cells, floor, _amount(plain), ratio])} |")
    if "recsim" in kept:
        lines.append(f"\nRecSim {kept['recsim']['version']}: {_amount(kept['recsim']['steps_per_second'])} steps/s")
    return "\n".join(lines)


def keep(kept: dict[str, Any], path: Path | None) -> None:
    """Write the figures so far."""
    if path is not None:
        path.write_text(json.dumps(kept, indent=1) + "\n")


def _amount(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


def draw(kept: dict[str, Any], path: Path) -> None:
    """Nanoseconds of a user step over users a call, and over the size of the catalogue."""
    from drawing import plain, save
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 3.8), sharey=True, layout="constrained")
    for place, (name, report) in enumerate(kept["environments"].items()):
        for axes, rows in zip(panels, (report["users"], report["catalogue"]), strict=True):
            points = [(next(iter(row.values())), 1e9 / row["user_steps_per_second"]) for row in rows]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=f"C{place}", label=name)
    for axes, label in zip(panels, ("users a call", "items in the catalogue (4,096 users a call)"), strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        plain(axes)
    panels[0].set_ylabel("ns a user step, one core")
    panels[0].legend(frameon=False, fontsize=7, ncols=2)
    save(figure, path)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures; cases not measured now keep theirs")
    parser.add_argument("--image", type=Path, help="draw them")
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--users", type=int, nargs="+", default=USERS, help="users a call")
    parser.add_argument("--seconds", type=float, default=2.0, help="of processor time a figure")
    parser.add_argument("--peer", default="", metavar="recsim=PYTHON", help="an interpreter with RecSim 0.2.4")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of figures and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(table(json.loads(arguments.table.read_text())))
        return
    if any(os.environ.get(name) != value for name, value in THREADS.items()):  # numpy has read them already
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **THREADS})
    kept: dict[str, Any] = {"environments": {}}
    if arguments.json is not None and arguments.json.exists():
        kept = json.loads(arguments.json.read_text())
    measured = kept["environments"]
    for name in arguments.only or CASES:
        print(f"{name}:")
        measured[name] = measure(CASES[name], tuple(arguments.users), arguments.seconds)
        kept |= {"environments": {case: measured[case] for case in CASES if case in measured}, **provenance()}
        keep(kept, arguments.json)
    if arguments.peer:
        kept["recsim"] = recsim_speed(arguments.peer.removeprefix("recsim="), arguments.seconds)
        keep(kept, arguments.json)
    if arguments.image is not None:
        draw(kept, arguments.image)
    print(table(kept))


if __name__ == "__main__":
    main()
