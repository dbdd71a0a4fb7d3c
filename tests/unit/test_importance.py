"""Importance weights against the formula of the paper, written out."""

import numpy as np
import pytest

from replay_server import Field, RecordSpec
from replay_server.batches import KEY_DTYPE, SampleBatch
from replay_server.importance import importance_weights

SPEC = RecordSpec((Field("number", "int64"),))


def batch_with(probabilities: np.ndarray) -> SampleBatch:
    rows = len(probabilities)
    return SampleBatch(SPEC, np.zeros((rows, 16), np.uint8), np.zeros(rows, KEY_DTYPE), probabilities, 1_000, 0)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_weights_are_the_papers(beta: float) -> None:
    probabilities = np.random.default_rng(0).exponential(size=64) / 1_000
    probabilities.flags.writeable = False
    expected = (1_000 * probabilities) ** -beta
    weights = importance_weights(batch_with(probabilities), beta)
    assert weights.dtype == np.float32 and weights.max() == 1.0
    assert np.allclose(weights, expected / expected.max(), rtol=1e-6)


def test_even_draws_all_weigh_one_and_an_empty_batch_nothing() -> None:
    assert importance_weights(batch_with(np.full(7, 0.3)), 0.7).tolist() == [1.0] * 7
    assert len(importance_weights(batch_with(np.empty(0)), 0.7)) == 0


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_an_exponent_outside_of_0_and_1_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta is"):
        importance_weights(batch_with(np.ones(2)), beta)
