"""What users make of an item they are shown."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.next_item.catalogue import Catalogue


class Response(Protocol):
    """A user's response to a shown item; write another and hand its class to the environment."""

    def probability(self, item: NDArray[Any], topic: NDArray[Any]) -> NDArray[np.float32]:
        """Chance of a click on `item` by a user with a taste for `topic`, integers that broadcast; float32."""


class MatchResponse:
    """Clicks where the item is of the user's topic and passes a draw of taste: (1 / rank)^exponent, else never.

    Args:
        catalogue: the items. The favourite of a topic is always clicked, the others by their taste relative to it.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._topic_of = catalogue.topic_of
        self._appeal = (catalogue.taste / catalogue.taste[0]).astype(np.float32)[catalogue.rank_of]

    def probability(self, item: NDArray[Any], topic: NDArray[Any]) -> NDArray[np.float32]:
        """See Response."""
        return np.asarray(self._appeal[item] * (self._topic_of[item] == topic))
