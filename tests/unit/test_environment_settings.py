"""What users of simulated users set: constants of the right kind, parts that can be used."""

from __future__ import annotations

from typing import Any

import pytest

from actors.environments import EnvironmentConfig, make_vector_env
from actors.envs.constants import check_kinds
from actors.envs.movie_pick import MoviePickModel
from actors.imports import make_part
from replay_server.errors import ConfigError


class Taste:
    """A part."""

    def __init__(self, model: str, rank: int = 1) -> None:
        self.model = model

    def draw(self) -> str:
        return self.model


def test_a_part_is_an_object_a_class_or_its_path() -> None:
    own = Taste("mine")
    assert make_part(own, "taste", ["draw"], model="m") is own
    for given in (Taste, f"{__name__}:Taste"):
        assert make_part(given, "taste", ["draw"], model="m").draw() == "m"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"{__name__}:Tste", r"taste: .* has no Tste; did you mean Taste\?"),
        ("Taste", "taste: 'Taste' is not of the form package.module:Class"),
        ("math:pi", r"taste math:pi: .*not callable; the class is called with \(model\)"),
        (object, r"taste object: .*; the class is called with \(model\)"),
        (3, "taste: int has no method draw; give a class that has draw"),
        ("builtins:str", "taste: builtins:str has no method draw"),
    ],
)
def test_what_is_no_part_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_part(given, "taste", ["draw"], model="m")


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"films": 2.5}, "films is 2.5, must be a whole number"),
        ({"films": "many"}, "films is 'many', must be a whole number"),
        ({"films": True}, "films is True, must be a whole number"),
        ({"films": 2**15}, "films is 32768, must be below 32768"),
        ({"click_bias": float("nan")}, "click_bias is nan, must be a finite number"),
        ({"click_bias": None}, "click_bias is None, must be a finite number"),
    ],
)
def test_constants_of_another_kind_are_refused(constants: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoviePickModel(**constants)
    check_kinds(MoviePickModel(click_bias=1))


@pytest.mark.parametrize(
    ("task", "kwargs", "message"),
    [
        ("ProtoAction", {"show_user": 1}, "show_user is 1, must be true or false"),
        ("ProtoAction", {"lam": float("nan")}, "lam is nan, must be a finite number"),
        ("NewsSession", {"days": float("nan")}, "days is nan, must be a finite number"),
        ("NewsSession", {"gap": 0.0}, "gap is 0.0, must be above 0"),
        ("NewsSession", {"mean_age": -1.0}, "mean_age is -1.0, must be at least 0"),
        ("NewsSession", {"continue_click": 2.0}, "continue_click is 2.0, must be between 0 and 1"),
        ("NewsSession", {"click_model": "builtins:dict"}, "click_model: builtins:dict has no method probabilities"),
        ("NextItem", {"response": "math:pi"}, r"called with \(catalogue\)"),
        ("NextItem", {"items": 1e3}, "items is 1000.0, must be a whole number"),
        ("SlateMNL", {"poor_share": 2.0}, "poor_share is 2.0, must be between 0 and 1"),
        ("SlateMNL", {"budget_minutes": float("inf")}, "budget_minutes is inf, must be a finite number"),
        ("TopKToy", {"slate_size": 2.5}, "slate_size is 2.5, must be a whole number"),
    ],
)
def test_environments_refuse_them_in_one_line(task: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        make_vector_env(EnvironmentConfig(id=f"headrace/{task}-v0", kwargs=kwargs), 2)
    assert "\n" not in str(refused.value)
