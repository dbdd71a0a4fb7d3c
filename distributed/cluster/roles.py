"""What the parts of a run ask of a node: the names that cluster files and placement share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distributed.cluster.problem import Problem

LEARNER = "learner"
"""Custom resource: how many learners a node takes. It stands at the nodes that are meant for one, with a GPU or not."""

REPLAY = "replay"
"""Custom resource: how many replay shards a node takes. A shard asks for one and for no CPU: the processors and the
memory of such a node are its shards', so the file gives it `CPU: 0` and no actor lands there."""


@dataclass(frozen=True)
class Role:
    """A part of a run and the resources that one of it asks of one node."""

    name: str
    asks: Mapping[str, float]


ROLES = (
    Role("the learner", {LEARNER: 1, "CPU": 1}),
    Role("replay shards", {REPLAY: 1}),
    Role("rollout actors", {"CPU": 1}),
)


@dataclass(frozen=True)
class Offer:
    """What one kind of node has.

    Args:
        field: where the file says so.
        resources: Ray's names -> amounts.
        nodes: how many there may be.
    """

    field: str
    resources: Mapping[str, float]
    nodes: int

    def takes(self, role: Role) -> bool:
        """Whether one node of this kind has room for one of a role."""
        return self.nodes > 0 and all(self.resources.get(name, 0) >= amount for name, amount in role.asks.items())


def unmet(offers: Sequence[Offer], field: str) -> Iterator[Problem]:
    """A problem for every role that no node has room for, and for a learner beside a GPU it cannot use."""
    for role in ROLES:
        if not any(offer.takes(role) for offer in offers):
            asks = ", ".join(f"{name}: {amount:g}" for name, amount in role.asks.items())
            yield Problem(field, f"no node has room for {role.name}; give one kind of node resources of {asks} or more")
    with_gpu = [offer for offer in offers if offer.nodes and offer.resources.get("GPU", 0) >= 1]
    learners = [offer for offer in offers if offer.nodes and offer.resources.get(LEARNER, 0) >= 1]
    if with_gpu and learners and not any(offer in with_gpu for offer in learners):
        yield Problem(learners[0].field, f"the learner's node has no GPU; move `{LEARNER}: 1` to {with_gpu[0].field}")
