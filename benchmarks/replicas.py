"""Draws the loss of one learner and of two replicas that share its batches, and how far they are apart.

    python benchmarks/replicas.py [--json FILE] [--image FILE]

A serial run of a shipped config trains; every batch that its learner draws is kept. Then a fresh learner learns from
these batches, and two replicas over gloo from their halves. What rounding alone does is seen in learners that learn
from the same batches with their records in another order.
"""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import torch
from drawing import DARK, GREY, WARM, plain, pyplot, save

from distributed.build import make_learner, make_spec, make_task
from distributed.config import ExperimentConfig
from distributed.config_loading import find_config
from distributed.loading import load_experiment
from distributed.runtime import Origin
from distributed.serial_runtime import SerialRuntime
from learners.loop import LearnerLoop, LearnerPace
from learners.replica_group import MeetingPlace, Membership, ReplicaGroup
from learners.replicas import ALONE, Replicas
from learners.weights import WeightSlot
from replay_server.batches import SampleBatch

HERE = Path(__file__).resolve().parent
CONFIG, UPDATES, SEED = "cartpole_dqn", 1_500, 100
MARKS = (50, 150, 500, UPDATES)
ORDERS = 5
PARTED = 1e-6  # a hundred times what rounding makes of a loss at first
SECONDS = 60.0


class Recorder:
    """A learner that keeps what it learns from."""

    def __init__(self, learner: Any) -> None:
        self._learner, self.batches = learner, list[SampleBatch]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def step(self, batch: SampleBatch) -> Any:
        kept = {name: getattr(batch, name).copy() for name in ("records", "keys", "probabilities")}
        self.batches.append(replace(batch, **kept))
        return self._learner.step(batch)


class Parts:
    """A replay that gives this replica's rows of these batches, in turn."""

    def __init__(self, batches: list[SampleBatch], replicas: Replicas) -> None:
        self._batches, self._rank, self._count = iter(batches), replicas.rank, replicas.count

    def sample(self, batch_size: int, timeout_s: float) -> SampleBatch:
        batch, rows = next(self._batches), slice(self._rank * batch_size, (self._rank + 1) * batch_size)
        return replace(
            batch, records=batch.records[rows].copy(), keys=batch.keys[rows], probabilities=batch.probabilities[rows]
        )

    def update_priorities(self, keys: Any, priorities: Any) -> None:
        pass


def recorded(config: ExperimentConfig) -> list[SampleBatch]:
    """The batches of a serial run, in order."""
    recorders = []

    def make(*arguments: Any, **settings: Any) -> Recorder:
        recorders.append(Recorder(make_learner(*arguments, **settings)))
        return recorders[0]

    with patch("distributed.serial_runtime.make_learner", make):
        runtime = SerialRuntime(config)
        runtime.start(Origin(None, None, (0,) * config.actors.count, 0))
        while len(recorders[0].batches) < UPDATES:
            runtime.advance()
        runtime.stop()
    return recorders[0].batches[:UPDATES]


def learn(config: ExperimentConfig, batches: list[SampleBatch], replicas: Replicas) -> dict[str, Any]:
    """Loss of every update, and parameters after those of MARKS."""
    task = make_task(config)
    learner = make_learner(config, task, make_spec(config, task), seed=SEED, device="cpu")
    learner.join(replicas)
    pace = LearnerPace(len(batches[0]) // replicas.count, publish_every_updates=100)
    replay: Any = Parts(batches, replicas)
    loop = LearnerLoop(learner, replay, WeightSlot(), pace=pace, clock=lambda: 0.0, replicas=replicas)
    losses, parameters = [], {}
    for number in range(1, len(batches) + 1):
        loop.step(0.0)
        losses.append(learner.take_metrics()["loss"])
        if number in MARKS:
            state = learner.state_dict()
            parameters[number] = np.concatenate(
                [state[name].numpy().ravel() for name in sorted(state) if name.startswith("online.")]
            )
    return {"losses": np.array(losses), "parameters": parameters}


def shuffled(batch: SampleBatch, order: np.ndarray) -> SampleBatch:
    """The same records in another order."""
    names = ("records", "keys", "probabilities")
    return replace(batch, **{name: np.ascontiguousarray(getattr(batch, name)[order]) for name in names})


def parting(apart: np.ndarray) -> int | None:
    """The first update whose losses are further apart than PARTED; None: none is."""
    return int(np.argmax(apart > PARTED)) + 1 if (apart > PARTED).any() else None


def learn_in_two(config: ExperimentConfig, batches: list[SampleBatch]) -> list[dict[str, Any]]:
    """What each of two replicas found."""
    meeting, found = MeetingPlace("127.0.0.1"), [dict[str, Any]()] * 2

    def work(rank: int) -> None:
        group = ReplicaGroup(Membership(rank, 2, meeting.address, "127.0.0.1", SECONDS, SECONDS), "cpu")
        found[rank] = learn(config, batches, group)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    """Learn, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "results" / "replicas.json")
    parser.add_argument("--image", type=Path, default=HERE / "images" / "replicas.png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_experiment(find_config(CONFIG), ()).config
    algorithm = msgspec.structs.replace(config.algorithm, diagnose_every_updates=1)
    run = msgspec.structs.replace(config.run, seed=SEED)
    config = msgspec.structs.replace(config, runtime="serial", algorithm=algorithm, run=run)
    batches = recorded(config)
    one, two = learn(config, batches, ALONE), learn_in_two(config, batches)
    losses = (two[0]["losses"] + two[1]["losses"]) / 2
    orders = [np.random.default_rng(number).permutation(len(batches[0])) for number in range(ORDERS)]
    others = [learn(config, [shuffled(batch, order) for batch in batches], ALONE) for order in orders]
    apart, *rounding = (np.abs(found - one["losses"]) for found in (losses, *(other["losses"] for other in others)))
    document = {
        "config": CONFIG,
        "seed": SEED,
        "updates": UPDATES,
        "batch_size": len(batches[0]),
        "loss": {"first": float(one["losses"][0]), "mean": float(one["losses"].mean())},
        "largest_deviation_of_loss": {str(n): float(apart[:n].max()) for n in MARKS},
        "largest_deviation_of_a_parameter": {
            str(n): float(np.abs(two[0]["parameters"][n] - one["parameters"][n]).max()) for n in MARKS
        },
        "first_update_apart": {
            "apart_by_more_than": PARTED,
            "two_replicas": parting(apart),
            "one_learner_with_records_in_another_order": [parting(other) for other in rounding],
        },
        "largest_parameter": float(np.abs(one["parameters"][UPDATES]).max()),
        "replicas_have_the_same_parameters": all(
            np.array_equal(two[0]["parameters"][n], two[1]["parameters"][n]) for n in MARKS
        ),
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    arguments.image.parent.mkdir(exist_ok=True)
    draw(one["losses"], losses, (apart, rounding[0]), arguments.image)
    print(json.dumps(document, indent=1))


def draw(one: np.ndarray, two: np.ndarray, apart: tuple[np.ndarray, np.ndarray], path: Path) -> None:
    """Both curves above; below their distance, and that of one learner from itself by rounding."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7.0, 4.6), sharex=True, layout="constrained")
    above.plot(one, color=DARK, linewidth=2.2, label="one learner, the whole batch")
    above.plot(two, color=WARM, linewidth=0.8, label="two replicas, half of it each")
    above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    above.set_title(f"{CONFIG}, the same {len(one):,} batches of a serial run", loc="left", fontsize=10)
    below.plot(np.maximum(apart[0], 1e-12), color=WARM, linewidth=0.8, label="of two replicas from one learner")
    rounding = "of one learner from itself, records of a batch in another order"
    below.plot(np.maximum(apart[1], 1e-12), color=GREY, linewidth=0.8, label=rounding)
    below.set_ylim(1e-12, 10.0)
    below.legend(frameon=False, loc="upper left")
    below.set_yscale("log")
    below.set_ylabel("difference")
    below.set_xlabel("update")
    for axes in (above, below):
        plain(axes)
    save(figure, path)


if __name__ == "__main__":
    main()
