"""The ladder of simple policies a ProtoAction agent is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.beliefs import Prior, TasteBelief
from actors.envs.proto_action.planning import plan, two_steps
from actors.envs.proto_action.search import ExactIndex
from actors.envs.proto_action.simulation import ProtoAction
from actors.timestep import TimeStep
from learners.policies import Action

_POPULAR = 50  # items that the popular policy chooses among
_EPSILON = 0.1
_LOOKED_AT = 64  # items of which the two-step look-ahead knows what would follow
_WIDTH, _POOL = 32, 256  # of the beam search
_SAMPLE = 20_000  # users of whom averages are taken
_SAMPLE_STREAM = 1  # keeps their draws apart from the catalogue's


class Chooser(Protocol):
    """Chooses items for the users of a simulation, which it may look into."""

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """An item for everybody, int64[B]."""


class Shown:
    """A chooser as a policy: gives items in the form that the environment takes, and tells what came of them."""

    def __init__(self, simulation: ProtoAction, chooser: Chooser) -> None:
        self._simulation, self._chooser = simulation, chooser
        self._ids = np.zeros(simulation.num_users, dtype=np.int64)
        self._learn = getattr(chooser, "learn", None)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Item ids, or their vectors."""
        self._ids = self._chooser.choose(rng)
        as_ids = self._simulation.model.actions == "items"
        action = self._ids if as_ids else self._simulation.catalogue.items[self._ids]
        return Action(action, np.zeros(len(self._ids), dtype=np.float32))

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Tell the chooser, if it wants to know."""
        if self._learn is not None:
            self._learn(self._ids, timestep)


class Uniform:
    """Any of some items with equal probability."""

    def __init__(self, ids: NDArray[np.int64], num_users: int) -> None:
        self._ids, self._users = ids, num_users

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        return self._ids[rng.integers(len(self._ids), size=self._users)]


class ClusterBandit:
    """Every user's own running mean reward of each cluster's central item; explores with a fixed probability.

    A cluster never tried counts as 0, the mean over all.
    """

    def __init__(self, simulation: ProtoAction, epsilon: float) -> None:
        catalogue = simulation.catalogue
        self._items = ExactIndex(catalogue.items).search(catalogue.centres)
        self._epsilon = epsilon
        self._total = np.zeros((simulation.num_users, len(self._items)))
        self._count = np.zeros((simulation.num_users, len(self._items)))
        self._arm = np.zeros(simulation.num_users, dtype=np.int64)

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose; ties are broken at random."""
        mean = self._total / np.maximum(self._count, 1.0)
        best = np.where(mean == mean.max(axis=1, keepdims=True), rng.random(mean.shape), -1.0).argmax(axis=1)
        exploring = rng.random(len(mean)) < self._epsilon
        self._arm = np.where(exploring, rng.integers(len(self._items), size=len(mean)), best)
        return self._items[self._arm]

    def learn(self, ids: NDArray[np.int64], timestep: TimeStep) -> None:
        """A user who left is forgotten."""
        rows = np.flatnonzero(timestep.valid)
        self._total[rows, self._arm[rows]] += timestep.reward[rows]
        self._count[rows, self._arm[rows]] += 1.0
        gone = timestep.terminated | timestep.truncated
        self._total[gone] = self._count[gone] = 0.0


class Nearest:
    """The item nearest to the true taste, blind to satiation."""

    def __init__(self, simulation: ProtoAction) -> None:
        self._simulation, self._index = simulation, ExactIndex(simulation.catalogue.items)

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        return self._index.search(self._simulation.state.taste)


class MyopicOracle:
    """The item of largest expected immediate reward, knowing taste and satiation."""

    def __init__(self, simulation: ProtoAction) -> None:
        self._simulation, self._index = simulation, ExactIndex(simulation.catalogue.items)

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        state = self._simulation.state
        return self._index.search(self._simulation.response.wish(state.taste, state.satiation))


class TwoStepOracle:
    """The item of largest expected reward of this and the next step together."""

    def __init__(self, simulation: ProtoAction) -> None:
        self._simulation = simulation

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        simulation = self._simulation
        state, items = simulation.state, simulation.catalogue.items
        return two_steps(simulation.model, items, state.taste, state.satiation, _LOOKED_AT)


class Planner:
    """Plans the whole episode when it begins, knowing the taste, and keeps to it."""

    def __init__(self, simulation: ProtoAction, steps: int) -> None:
        self._simulation = simulation
        self._plan = np.zeros((simulation.num_users, steps), dtype=np.int64)

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        simulation, steps = self._simulation, self._plan.shape[1]
        new = np.flatnonzero(simulation.age == 0)
        if len(new):
            taste = simulation.state.taste[new]
            items = simulation.catalogue.items
            self._plan[new] = plan(simulation.model, items, taste, steps, width=_WIDTH, pool=_POOL)
        return self._plan[np.arange(len(self._plan)), simulation.age % steps]


class BeliefGreedy:
    """The myopic oracle's choice for the taste to be expected after the rewards so far.

    It knows satiation, which follows from the items shown, and how tastes are distributed; it does not see a taste.

    Args:
        simulation: the users.
        clusters: the prior is one normal distribution for each centre of the catalogue, else one for all users.
    """

    def __init__(self, simulation: ProtoAction, *, clusters: bool) -> None:
        model, items, centres = simulation.model, simulation.catalogue.items, simulation.catalogue.centres
        drawn = _sample(simulation)
        groups = (drawn @ centres.T).argmax(axis=1) if clusters else np.zeros(len(drawn), dtype=np.int64)
        step = model.drift / np.sqrt(items.shape[1])
        self._belief = TasteBelief(Prior.of(drawn, groups), model.reward_noise, step, simulation.num_users)
        self._simulation, self._index = simulation, ExactIndex(items)
        self._satiation = np.zeros((simulation.num_users, items.shape[1]), dtype=np.float32)

    def choose(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """See Chooser.choose."""
        self._satiation = self._simulation.state.satiation.copy()
        expected = self._belief.expected().astype(np.float32)
        return self._index.search(self._simulation.response.wish(expected, self._satiation))

    def learn(self, ids: NDArray[np.int64], timestep: TimeStep) -> None:
        """A user who left is forgotten."""
        model = self._simulation.model
        rows = np.flatnonzero(timestep.valid)
        h = model.reward_scale * self._simulation.catalogue.items[ids[rows]].astype(np.float64)
        sated = model.lam * np.einsum("nd,nd->n", h, self._satiation[rows])
        self._belief.observe(rows, h, timestep.reward[rows] + sated)
        self._belief.forget(np.flatnonzero(timestep.terminated | timestep.truncated))


def _sample(simulation: ProtoAction) -> NDArray[np.float64]:
    """Tastes of many users, float64[n, d], the same at every call."""
    rng = np.random.default_rng([simulation.model.catalogue_seed, _SAMPLE_STREAM])
    return simulation.users.draw(_SAMPLE, rng).astype(np.float64)


def _popular(simulation: ProtoAction) -> Uniform:
    liked = simulation.catalogue.items @ _sample(simulation).mean(axis=0)
    return Uniform(np.argsort(-liked, kind="stable")[:_POPULAR], simulation.num_users)


Factory = Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]


def _on_simulation(build: Callable[[ProtoAction], Chooser]) -> Factory:
    def policy(env: Any) -> Shown:
        return Shown(env.simulation, build(env.simulation))

    return policy


def _planner(env: Any) -> Shown:
    return Shown(env.simulation, Planner(env.simulation, env.max_episode_steps))


BASELINES: Mapping[str, Factory] = {
    "popular 50": _on_simulation(_popular),
    "random": _on_simulation(lambda s: Uniform(np.arange(len(s.catalogue.items)), s.num_users)),
    "per-user bandit": _on_simulation(lambda s: ClusterBandit(s, _EPSILON)),
    "Kalman filter, greedy": _on_simulation(lambda s: BeliefGreedy(s, clusters=False)),
    "filters of all clusters, greedy": _on_simulation(lambda s: BeliefGreedy(s, clusters=True)),
    "nearest to the taste": _on_simulation(Nearest),
    "myopic oracle": _on_simulation(MyopicOracle),
    "two-step oracle": _on_simulation(TwoStepOracle),
    "planning oracle": _planner,
}
