"""Reading and writing YAML: what PyYAML alone gets wrong."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distributed.yaml_text import read, write_value
from replay_server.errors import ConfigError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e6", 1_000_000),
        ("1.5e6", 1_500_000),
        ("1_000_000", 1_000_000),
        ("-.5", -0.5),
        ("1e-05", 1e-5),
        ("010", 10),
        ("0x10", 16),
        ("true", True),
        ("null", None),
        ("", None),
        ("on", "on"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1e6'", "1e6"),
        ("[1, 2.0]", [1, 2.0]),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    got = read(text, "here").values
    assert got == value and type(got) is type(value)


@example({"\x85": None})
@given(PLAIN)
def test_a_written_value_reads_back_and_takes_one_line(value):
    text = write_value(value)
    assert "\n" not in text
    got = read(f"group:\n  key: {text}\n", "here").values["group"]["key"]
    assert got == value and repr(got) == repr(value)


def test_lines_of_values():
    document = read("a:\n  b: 1\n\n  c: [5,\n      6]\n", "here")
    assert document.lines[("a",)] == 1
    assert document.lines[("a", "b")] == 2
    assert document.lines[("a", "c", "1")] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: given twice, first in line 1; remove one"),
        ("x:\n  y: 1\n  y: 1\n", "f.yaml:3: x.y: given twice, first in line 2; remove one"),
        ("a: [1, 2\nb: 3\n", "f.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("1: x\n", "f.yaml:1: a key must be text; put it in quotes"),
        ("a: 1e999\n", "f.yaml:1: '1e999' is not a finite number"),
        ("a: !!python/object:os.system {}\n", "f.yaml:1: tag tag:yaml.org,2002:python/object:os.system is not allowed"),
        ("a: &x [*x]\n", "f.yaml:1: an alias inside what it stands for; write the value out"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        read(text, "f.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_non_finite_numbers_are_never_read():
    assert read(".nan", "here").values == ".nan"
    with pytest.raises(ConfigError, match="not a finite number"):
        read(write_value(math.inf), "here")


@pytest.mark.parametrize("text", ["a: \0", "[" * 5000])
def test_text_that_the_parser_itself_chokes_on_is_one_line(text):
    with pytest.raises(ConfigError, match="not valid YAML"):
        read(text, "x.yaml")
