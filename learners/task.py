"""What a learner has to know of its environment, without knowing Gymnasium."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from replay_server.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_PIXELS = 36  # a side; what is smaller are numbers one under the other


class DiscreteActions(msgspec.Struct, frozen=True):
    """One choice out of `count`; stored as int64[]."""

    count: int


class ContinuousActions(msgspec.Struct, frozen=True):
    """A vector within bounds, one pair for each dimension; stored as float32[len(low)]."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """Dimensions of one action."""
        return len(self.low)


class SlateActions(msgspec.Struct, frozen=True):
    """`slots` places, each filled with one of `candidates`; stored as int64[slots]."""

    candidates: int
    slots: int


class Part(msgspec.Struct, frozen=True):
    """One named array inside an observation: of a Dict space, packed into one float32 vector.

    `actors.layouts.PartLayout` has the same fields: neither package may import the other's, and whoever builds a run
    makes one of the other.

    Attributes:
        name: key in the Dict space; `observation` where the observation is Discrete or MultiDiscrete.
        start: first number of the part in the vector.
        stop: one past its last.
        shape: shape of the part.
        integer: whole numbers (item ids, masks), never standardised.
        largest: largest whole number, 0 where they are none.
        categories: how many values each number of a Discrete or MultiDiscrete can take, from 0; empty for all others.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    integer: bool
    largest: int = 0
    categories: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in the part."""
        return self.stop - self.start

    def of(self, packed: Tensor) -> Tensor:
        """Its numbers in packed observations: [B, n] -> [B, size], a view."""
        return packed[:, self.start : self.stop]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Observation and action layout of one environment.

    Attributes:
        observation_dtype: numpy dtype name of an observation.
        observation_shape: shape of one observation.
        actions: what can be chosen.
        parts: named arrays of a packed Dict observation, in order; one for a Discrete or MultiDiscrete observation;
            empty where the observation is one array of quantities. Names with a meaning: `observation` (numbers),
            `action_mask` [A] (1: allowed), `candidates` [M] item ids or [M, d] features, `history` [H] item ids
            (-1: none) or [H, d] features (all 0: none), oldest first, `response` [slots] (1: consumed), what the last
            slate led to, `choice_scores` [M + 1], how much the user is drawn to each candidate and to none.
        item_embeddings: float32[N, d] of the items actions choose from, or None where the environment has none.
        normalise_observations: networks standardise observations with the run's running moments.
        normalise_rewards: rewards are divided by the run's running deviation of the discounted return.
    """

    observation_dtype: str
    observation_shape: tuple[int, ...]
    actions: DiscreteActions | ContinuousActions | SlateActions
    parts: tuple[Part, ...] = ()
    item_embeddings: Any = None
    normalise_observations: bool = False
    normalise_rewards: bool = False

    @property
    def observation_size(self) -> int:
        """Numbers in one flattened observation."""
        return math.prod(self.observation_shape)

    @property
    def is_image(self) -> bool:
        """Pixels: uint8 with three axes or four, or with two that are at least 36 long."""
        if self.observation_dtype != "uint8" or self.parts:
            return False
        shape = self.observation_shape
        return len(shape) in (3, 4) or (len(shape) == 2 and min(shape) >= _LEAST_PIXELS)

    def part(self, name: str) -> Part | None:
        """The part of that name, or None."""
        return next((part for part in self.parts if part.name == name), None)

    def discrete(self, algorithm: str) -> DiscreteActions:
        """The actions, for an algorithm that chooses one of several.

        Raises:
            ConfigError: they are of another kind.
        """
        if not isinstance(self.actions, DiscreteActions):
            raise ConfigError(f"algorithm.type: {algorithm} takes Discrete actions from 0, {_said(self.actions)}")
        return self.actions

    def continuous(self, algorithm: str) -> ContinuousActions:
        """The actions, for an algorithm that chooses a vector.

        Raises:
            ConfigError: they are of another kind.
        """
        if not isinstance(self.actions, ContinuousActions):
            raise ConfigError(f"algorithm.type: {algorithm} takes a bounded Box of actions, {_said(self.actions)}")
        return self.actions

    def slate(self, algorithm: str) -> SlateActions:
        """The actions, for an algorithm that chooses several of a number of candidates.

        Raises:
            ConfigError: they are of another kind, or one slate holds more than there are.
        """
        if not isinstance(self.actions, SlateActions):
            raise ConfigError(f"algorithm.type: {algorithm} takes slates (MultiDiscrete), {_said(self.actions)}")
        if self.actions.slots > self.actions.candidates:
            raise ConfigError(
                f"environment.id: its slates hold {self.actions.slots} of {self.actions.candidates} candidates; a "
                "slate shows each at most once, so offer more or show fewer"
            )
        return self.actions


def _said(actions: object) -> str:
    match actions:
        case DiscreteActions(count):
            return f"the environment's are Discrete({count}); dqn takes these"
        case ContinuousActions():
            return f"the environment's are a Box of {len(actions.low)} dimension(s); td3 takes these"
        case SlateActions(candidates, slots):
            return f"the environment's are slates of {slots} out of {candidates}; slateq and dqn take these"
    raise TypeError(type(actions))
