"""What users of MoviePick do with the film they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""float32 or float64 of any shape, the same for all that goes in and comes back."""


class Response(Protocol):
    """How likely a film is clicked and watched to the end. A class of one's own needs this method alone."""

    def probabilities(self, click_logit: Floats, complete_logit: Floats, watched: Floats) -> tuple[Floats, Floats]:
        """P(click) and P(watched to the end | click).

        Args:
            click_logit: how much the user is drawn to the film.
            complete_logit: how much the user likes it once seen.
            watched: how often it is among the films the user remembers.
        """


@dataclass(frozen=True)
class SatiatedResponse:
    """Sigmoids of the logits, which fall by a constant for each time the film is remembered.

    Attributes:
        click_satiation: what a remembered time takes from the logit of a click.
        complete_satiation: what it takes from the logit of watching to the end.
    """

    click_satiation: float = 0.25
    complete_satiation: float = 0.1

    def probabilities(self, click_logit: Floats, complete_logit: Floats, watched: Floats) -> tuple[Floats, Floats]:
        """See Response."""
        dtype = click_logit.dtype.type
        click = _sigmoid(click_logit - dtype(self.click_satiation) * watched)
        return click, _sigmoid(complete_logit - dtype(self.complete_satiation) * watched)


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))
