"""Choice models against their formulas, one user at a time, and their draws against their probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from actors.envs.choice import (
    ChoiceModel,
    ExponentialCascade,
    MultinomialLogit,
    PositionBased,
    Proportional,
    ProportionalCascade,
    ShareModel,
    check_choice_model,
    draw,
    make_choice_model,
    unrepeated,
)
from replay_server.errors import ConfigError


def mnl(scores: list[float], shown: list[bool]) -> list[float]:
    return shares([math.exp(2.0 * s) if seen else 0.0 for s, seen in zip(scores, shown, strict=True)], math.exp(2.0))


def proportional(scores: list[float], shown: list[bool]) -> list[float]:
    return shares([max(s + 1.0, 0.0) if seen else 0.0 for s, seen in zip(scores, shown, strict=True)], 2.0)


def shares(masses: list[float], none: float) -> list[float]:
    total = none + sum(masses)
    return [*(mass / total for mass in masses), none / total]


def exponential_cascade(scores: list[float], shown: list[bool]) -> list[float]:
    return down([0.65 * min(1.0, 0.25 * math.exp(s)) if seen else 0.0 for s, seen in zip(scores, shown, strict=True)])


def proportional_cascade(scores: list[float], shown: list[bool]) -> list[float]:
    return down(
        [0.65 * min(1.0, max(0.0, 0.25 * (s + 1))) if seen else 0.0 for s, seen in zip(scores, shown, strict=True)]
    )


def down(taken: list[float]) -> list[float]:
    outcomes, left = [], 1.0
    for share in taken:
        outcomes.append(left * share)
        left *= 1.0 - share
    return [*outcomes, left]


def position_based(scores: list[float], shown: list[bool]) -> list[float]:
    looks = [0.85**place for place in range(len(scores))]
    taken = [
        look / sum(looks) / (1 + math.exp(-2 * s)) * seen for look, s, seen in zip(looks, scores, shown, strict=True)
    ]
    return [*taken, 1.0 - sum(taken)]


MODELS: dict[str, tuple[ChoiceModel, Any]] = {
    "mnl": (MultinomialLogit(), mnl),
    "proportional": (Proportional(), proportional),
    "exponential_cascade": (ExponentialCascade(), exponential_cascade),
    "proportional_cascade": (ProportionalCascade(), proportional_cascade),
    "position_based": (PositionBased(), position_based),
}


@pytest.fixture(params=MODELS.items(), ids=MODELS.keys())
def named(request: pytest.FixtureRequest) -> tuple[str, tuple[ChoiceModel, Any]]:
    chosen: tuple[str, tuple[ChoiceModel, Any]] = request.param
    return chosen


class TestChoiceModel:
    def test_probabilities_are_the_formula_user_by_user(self, named: tuple[str, tuple[ChoiceModel, Any]]) -> None:
        model, slow = named[1]
        rng = np.random.default_rng(0)
        for slots in (1, 3, 10):
            scores = rng.uniform(-1.5, 3.5, (40, slots)).astype(np.float32)
            shown = rng.random((40, slots)) < 0.8
            before = scores.copy()
            found = model.probabilities(scores, shown)
            assert found.dtype == np.float32 and found.shape == (40, slots + 1)
            np.testing.assert_array_equal(scores, before)
            expected = [slow(*row) for row in zip(scores.tolist(), shown.tolist(), strict=True)]
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)

    def test_draws_have_these_probabilities(self, named: tuple[str, tuple[ChoiceModel, Any]]) -> None:
        model, slow = named[1]
        scores, shown = [0.9, -0.2, 0.4, 0.9], [True, True, True, False]
        count = 200_000
        probabilities = model.probabilities(np.tile(np.float32(scores), (count, 1)), np.tile(shown, (count, 1)))
        drawn = draw(probabilities, np.random.default_rng(1).random(count, dtype=np.float32))
        seen = np.bincount(drawn, minlength=5)
        exact = np.array(slow(scores, shown))
        assert seen[3] == 0  # repeats its place
        possible = exact > 0
        assert stats.chisquare(seen[possible], exact[possible] / exact.sum() * count).pvalue > 0.01

    def test_whatever_the_scores_the_rows_are_probabilities(self, named: tuple[str, tuple[ChoiceModel, Any]]) -> None:
        model = named[1][0]
        scores = np.float32([[-300, 300, 0], [-300, -300, -300], [300, 300, 300]])
        for shown in (np.ones((3, 3), np.bool_), np.zeros((3, 3), np.bool_)):
            with np.errstate(over="ignore"):
                found = model.probabilities(scores, shown)
            assert np.isfinite(found).all() and (found >= 0).all()
            np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(found[:, 3], 1.0)  # nothing shown, nothing consumed

    def test_its_name_makes_it(self, named: tuple[str, tuple[ChoiceModel, Any]]) -> None:
        assert make_choice_model(named[0]) == named[1][0]


def test_draw_takes_the_place_where_the_uniform_number_falls() -> None:
    probabilities = np.tile(np.float32([0.25, 0.0, 0.5, 0.25]), (6, 1))
    uniforms = np.float32([0.0, 0.24, 0.25, 0.74, 0.75, 0.999])
    assert draw(probabilities, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("name", ["mnl", "proportional"])
def test_masses_are_what_the_probabilities_share(name: str) -> None:
    model = MODELS[name][0]
    assert isinstance(model, ShareModel) and not isinstance(PositionBased(), ShareModel)
    scores = np.float32([[0.3, -0.8, 1.0]])
    masses, none = model.masses(scores)
    expected = np.append(masses[0], none) / (masses.sum() + none)
    np.testing.assert_allclose(model.probabilities(scores, np.ones((1, 3), np.bool_))[0], expected, rtol=1e-6)


def test_only_the_first_of_equals_is_shown() -> None:
    slate = np.array([[1, 2, 3], [1, 1, 1], [2, 1, 2], [0, 3, 3]])
    assert unrepeated(slate).tolist() == [
        [True, True, True],
        [True, False, False],
        [True, True, False],
        [True, True, False],
    ]


class FirstPlace:
    """A user's own model: ten lines are enough."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def probabilities(self, scores: Any, shown: Any) -> Any:
        outcomes = np.zeros((len(scores), scores.shape[1] + 1), dtype=np.float32)
        outcomes[:, 0] = self.share * shown[:, 0]
        outcomes[:, -1] = 1.0 - outcomes[:, 0]
        return outcomes


def test_models_of_ones_own_are_taken(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = FirstPlace()
    assert make_choice_model(own) is own
    (tmp_path / "own_choice.py").write_text(
        "class Never:\n    def __init__(self, x=1):\n        self.x = x\n"
        "    def probabilities(self, scores, shown): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_choice_model("own_choice:Never", x=3).x == 3  # type: ignore[attr-defined]
    assert make_choice_model("mnl", beta=1.0) == MultinomialLogit(beta=1.0)


class Broken:
    """A model whose author has mistaken something."""

    def __init__(self, outcomes: Any) -> None:
        self.outcomes = np.asarray(outcomes, dtype=np.float32)

    def probabilities(self, scores: Any, shown: Any) -> Any:
        return self.outcomes


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], r"shape \[2, 2\] for scores \[2, 2\]; return \[2, 3\]"),
        ([[0.5, np.nan, 0.5], [0.5, 0.0, 0.5]], "below 0 or NaN"),
        ([[1.5, -0.5, 0.0], [0.5, 0.0, 0.5]], "below 0 or NaN"),
        ([[0.5, 0.5, 0.5], [0.5, 0.0, 0.5]], "rows of sum"),
    ],
)
def test_what_are_no_probabilities_is_refused(outcomes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_choice_model(Broken(outcomes), 2)
    check_choice_model(FirstPlace(), 2)


@pytest.mark.parametrize(
    ("name", "constants", "message"),
    [
        ("softmax", {}, "choice_model is 'softmax', must be one of mnl"),
        ("math:pi", {}, "choice_model math:pi"),
        ("math:nothing", {}, "choice_model: math has no nothing"),
        ("builtins:dict", {}, "has no method probabilities"),
        ("mnl", {"gamma": 1.0}, "choice_model mnl: .*gamma"),
        ("proportional", {"none_mass": 0.0}, "none_mass is 0.0"),
        ("exponential_cascade", {"attention": 1.5}, "attention is 1.5"),
        ("proportional_cascade", {"scaling": -1.0}, "scaling is -1.0"),
        ("position_based", {"decay": 2.0}, "decay is 2.0"),
        (FirstPlace(), {"share": 1.0}, "FirstPlace is made already"),
    ],
)
def test_what_does_not_fit_is_refused(name: Any, constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_choice_model(name, **constants)
