"""How likely a user clicks on an item that is new to him."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.fitted_users import FittedUsers


class ClickModel(Protocol):
    """A click model; it is built from FittedUsers."""

    def of_pairs(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """P(click) float32[B] of user b for item b."""

    def of_all(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """P(click) float32[B, N] of user b for every item."""


class CalibratedClicks:
    """sigmoid(click[0] + click[1] u.v + click[2] generosity + click[3] quality), as fitted on the log.

    Args:
        fitted: factors and coefficients.
    """

    def __init__(self, fitted: FittedUsers) -> None:
        bias, factors, generosity, quality = (np.float32(weight) for weight in fitted.click)
        self._users = fitted.user_factors * factors
        self._items = fitted.item_factors
        self._of_user = bias + generosity * fitted.generosity
        self._of_item = quality * fitted.quality

    def of_pairs(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ClickModel."""
        product = np.einsum("bd,bd->b", self._users[users], self._items[items])
        return _sigmoid(product + self._of_user[users] + self._of_item[items])

    def of_all(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """See ClickModel."""
        product = self._users[users] @ self._items.T
        return _sigmoid(product + self._of_user[users, None] + self._of_item)


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.float32(1.0) / (np.float32(1.0) + np.exp(-logit)))
