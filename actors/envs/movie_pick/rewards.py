"""What the agent of MoviePick is paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rewards:
    """One of three numbers a step.

    Attributes:
        ignore: of a film that was not clicked.
        click: of one that was clicked and not watched to the end.
        complete: of one that was watched to the end.
    """

    ignore: float = -0.1
    click: float = 1.0
    complete: float = 10.0

    def of(self, clicked: NDArray[np.bool_], completed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Rewards [B] of what B users did; nothing is completed unclicked."""
        table = np.array([self.ignore, self.click, self.complete], dtype=np.float32)
        return np.asarray(table[clicked.astype(np.intp) + completed])

    def expected(self, click: NDArray[Any], complete: NDArray[Any]) -> NDArray[Any]:
        """Mean reward by P(click) and P(watched to the end | click), of any one shape."""
        clicked = complete * self.complete + (1.0 - complete) * self.click
        return np.asarray(click * clicked + (1.0 - click) * self.ignore)
