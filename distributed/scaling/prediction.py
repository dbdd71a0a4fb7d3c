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
        gain: how many times the environment steps a second that would bring, simulated; None where one of the two has
            not settled.
        nodes: machines by kind.
        node_hours: of all of them, for 10^9 environment steps; None where nothing has settled.
        price: of these, in the user's currency; None without prices.
    """

    actors: int
    shards: int
    outcome: Outcome
    bound_by: str
    add: str
    gain: float | None
    nodes: dict[str, int]
    node_hours: float | None
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
    nodes = System.of(plan.config, plan.machines).nodes
    gain = hours = None
    if outcome.settled:
        hours = _BILLION / outcome.env_steps_per_second / 3600.0
        instead = better.simulate(seconds)
        gain = instead.env_steps_per_second / outcome.env_steps_per_second if instead.settled else None
    return Prediction(
        actors=plan.config.actors.count,
        shards=plan.config.replay.shards,
        outcome=outcome,
        bound_by=bound,
        add=add,
        gain=gain,
        nodes=nodes,
        node_hours=None if hours is None else hours * sum(nodes.values()),
        price=None
        if hours is None or not prices
        else hours * sum(prices.get(kind, 0.0) * nodes[kind] for kind in nodes),
    )


def bound_by(outcome: Outcome) -> str:
    """What is used most; actors, when nothing that they share is nearly full.

    A full weight store holds nothing up, and only leaves actors behind. Where the learner or the actors work nearly all
    the time, a shard or driver that is busy with askers takes nothing from them.
    """
    busy = outcome.busy
    free = {"actors", "store"} | ({"shards", "driver"} if max(busy["learner"], busy["actors"]) >= _FULL else set())
    shared = {name: share for name, share in busy.items() if name not in free}
    name = max(shared, key=lambda part: shared[part])
    if name == "learner" and busy["actors"] > busy["learner"]:
        return "actors"
    return name if shared[name] >= _FULL or shared[name] > busy["actors"] else "actors"


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


def saturation(predictions: list[Prediction]) -> Prediction | None:
    """The smallest size that comes within a tenth of the best; None where no size has settled."""
    settled = [prediction for prediction in predictions if prediction.outcome.settled]
    best = max((prediction.outcome.env_steps_per_second for prediction in settled), default=0.0)
    return next((p for p in settled if p.outcome.env_steps_per_second >= _FULL * best), None)
