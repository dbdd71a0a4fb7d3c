"""What more actors would bring: where a run saturates, what to add then, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from distributed.config import ExperimentConfig
from distributed.scaling.model import Outcome, simulate
from distributed.scaling.system import Machines, ServiceTimes, System, sized

_FULL = 0.9
_BILLION = 1e9


class Prediction(Struct, frozen=True):
    """One size of a run.

    Attributes:
        bound_by: what holds it up: `actors`, `learner`, `shards`, `driver`, `processors` of the head,
            `network`.
        add: what would help, in words.
        gain: how many times the environment steps a second that would bring, simulated.
        nodes: machines by kind.
        node_hours: of all of them, for 10^9 environment steps.
        price: of these, in the user's currency; None without prices.
    """

    actors: int
    shards: int
    outcome: Outcome
    bound_by: str
    add: str
    gain: float
    nodes: dict[str, int]
    node_hours: float
    price: float | None


@dataclass(frozen=True)
class Plan:
    """A run that could be: its config, what its parts cost, and the machines."""

    config: ExperimentConfig
    times: ServiceTimes
    machines: Machines

    def simulate(self, seconds: float) -> Outcome:
        """What it would do."""
        return simulate(System.of(self.config, self.machines), self.times, seconds)


def predict(plan: Plan, seconds: float, prices: Mapping[str, float]) -> Prediction:
    """One size, and what the remedy for what bounds it would bring.

    Args:
        plan: the run.
        seconds: to simulate.
        prices: of an hour of a node, by kind; kinds without one cost nothing, and nothing has a price without any.
    """
    outcome = plan.simulate(seconds)
    bound = bound_by(outcome)
    add, better = remedy(plan, bound)
    gain = better.simulate(seconds).env_steps_per_second / max(outcome.env_steps_per_second, 1e-9)
    nodes = System.of(plan.config, plan.machines).nodes
    hours = _BILLION / max(outcome.env_steps_per_second, 1e-9) / 3600.0
    return Prediction(
        actors=plan.config.actors.count,
        shards=plan.config.replay.shards,
        outcome=outcome,
        bound_by=bound,
        add=add,
        gain=gain,
        nodes=nodes,
        node_hours=hours * sum(nodes.values()),
        price=hours * sum(prices.get(kind, 0.0) * count for kind, count in nodes.items()) if prices else None,
    )


def bound_by(outcome: Outcome) -> str:
    """What is used most; actors, when nothing that they share is nearly full.

    A full weight store holds nothing up, and only leaves actors behind.
    """
    shared = {name: share for name, share in outcome.busy.items() if name not in ("actors", "store")}
    name = max(shared, key=lambda part: shared[part])
    return name if shared[name] >= _FULL or shared[name] > outcome.busy["actors"] else "actors"


def remedy(plan: Plan, bound: str) -> tuple[str, Plan]:
    """What to add, in words and done."""
    config, times, machines = plan.config, plan.times, plan.machines
    actors, shards = config.actors.count, config.replay.shards
    match bound:
        case "learner":
            faster = replace(times, update_s=times.update_s / 2)
            return "a learner twice as fast, or half the samples_per_insert", Plan(config, faster, machines)
        case "shards":
            return "twice the shards", Plan(sized(config, actors, 2 * shards), times, machines)
        case "driver":
            environment = replace(config.environment, num_envs=2 * config.environment.num_envs)
            halved = sized(replace(config, environment=environment), max(actors // 2, 1), shards)
            slower = replace(times, vector_step_s=2 * times.vector_step_s)
            return "half the actors with twice the environments each", Plan(halved, slower, machines)
        case "network":
            wider = replace(machines, bytes_per_s=2 * machines.bytes_per_s)
            return "twice the bandwidth", Plan(config, times, wider)
        case "processors":
            more = replace(machines, head_cores=2 * machines.head_cores)
            return "twice the processors of the head", Plan(config, times, more)
    return "twice the actors", Plan(sized(config, 2 * actors, shards), times, machines)


def saturation(predictions: list[Prediction]) -> Prediction:
    """The smallest size that comes within a tenth of the best."""
    best = max(prediction.outcome.env_steps_per_second for prediction in predictions)
    return next(p for p in predictions if p.outcome.env_steps_per_second >= _FULL * best)
