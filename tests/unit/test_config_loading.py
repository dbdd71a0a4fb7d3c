"""From a YAML file and dotted options to checked structs: every refusal is one line that says where and what to do."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from distributed.config_loading import Loaded, Override, dump_yaml, find_config, load, show
from replay_server.errors import ConfigError


class Optimiser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    momentum: float = 0.9


class Sgd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str = "sgd"
    learning_rate: Annotated[float, Meta(gt=0, description="Step size.")] = 0.1
    layers: tuple[Annotated[int, Meta(ge=1)], ...] = (8, 8)
    loss: Literal["huber", "mse"] = "huber"
    soft: float | None = None
    hard: int | None = None
    optimiser: Optimiser = Optimiser()

    def __post_init__(self) -> None:
        if self.soft is not None and self.hard is not None:
            raise ValueError("soft and hard contradict each other: set one of them")


class Untyped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An algorithm struct without a field `type`."""

    width: int = 4


class Store(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    capacity: Annotated[int, Meta(ge=1, description="Records kept.")]
    min_size: int = 10
    options: dict[str, Any] = {}
    names: list[str] = []

    def __post_init__(self) -> None:
        if self.min_size == 13:
            raise ConfigError("store.min_size is 13, which nobody can explain")


class Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str


class Root(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    runtime: Literal["ray", "serial"] = "ray"
    store: Store
    algorithm: Any
    peers: tuple[Peer, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.runtime == "serial" and self.peers:
            raise ValueError("runtime serial contradicts peers: drop one of them")


class Plain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: str
    store: Store = Store(capacity=5)


ALGORITHMS = {"sgd": f"{__name__}:Sgd"}
BASE = "store:\n  capacity: 100\nalgorithm:\n  type: sgd\n"


@pytest.fixture
def load_text(tmp_path):
    path = tmp_path / "c.yaml"

    def from_text(text, *overrides, root=Root, algorithms=ALGORITHMS):
        path.write_text(text)
        return load(root, path, [Override.parse(*o.split(" ", 1)) for o in overrides], algorithms)

    return from_text


def the_error(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_file_and_options_make_the_structs(load_text):
    config = load_text(
        BASE + "  learning_rate: 3e-4\n",
        "--store.min-size 1e3",
        "--algorithm.layers [4, 5]",
        "--algorithm.optimiser.momentum 0",
        "--store.options.size 1_000",
        "--runtime serial",
    ).config
    assert config == Root(
        runtime="serial",
        store=Store(capacity=100, min_size=1000, options={"size": 1000}),
        algorithm=Sgd(learning_rate=3e-4, layers=(4, 5), optimiser=Optimiser(momentum=0.0)),
    )


def test_later_options_win_and_a_group_can_be_replaced(load_text):
    config = load_text(BASE, "--store.min-size 1", "--store {capacity: 7}", "--store.capacity 8").config
    assert config.store == Store(capacity=8)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        # unknown keys, at any depth
        ("stor:\n  capacity: 1\n", [], "{file}:1: stor: unknown key; did you mean store?"),
        (
            BASE + "  learning-rate: 1\n",
            [],
            "{file}:5: algorithm.learning-rate: unknown key; did you mean algorithm.learning_rate?",
        ),
        (
            BASE + "  optimiser: {momentun: 1}\n",
            [],
            "{file}:5: algorithm.optimiser.momentun: unknown key; did you mean algorithm.optimiser.momentum?",
        ),
        (
            BASE + "peers:\n  - host: a\n  - hots: b\n",
            [],
            "{file}:7: peers.1.hots: unknown key; did you mean peers.1.host?",
        ),
        (BASE, ["--learning-rate 1"], "--learning_rate: unknown key; did you mean algorithm.learning_rate?"),
        (BASE, ["--store.zzz 1"], "--store.zzz: unknown key; valid here: capacity, min_size, options, names"),
        # wrong types and values
        (
            "store:\n  capacity: many\nalgorithm: {type: sgd}\n",
            [],
            "{file}:2: store.capacity: must be a whole number, not many (Records kept.)",
        ),
        (BASE, ["--store.capacity 0"], "--store.capacity: must be a whole number >= 1, not 0 (Records kept.)"),
        (BASE, ["--store.capacity 2.5"], "--store.capacity: must be a whole number, not 2.5 (Records kept.)"),
        (
            BASE,
            ["--algorithm.learning-rate .nan"],
            "--algorithm.learning_rate: must be a number, not .nan (Step size.)",
        ),
        (BASE, ["--algorithm.layers [1, x]"], "--algorithm.layers: algorithm.layers.1: must be a whole number, not x"),
        (BASE, ["--algorithm.loss hubr"], "--algorithm.loss: must be one of huber, mse, not hubr; did you mean huber?"),
        (BASE, ["--algorithm.soft x"], "--algorithm.soft: must be a number or null, not x"),
        (BASE + "note: 5\n", [], "{file}:5: note: must be text (put it in quotes), not 5"),
        (BASE + "store2: 1\n", ["--store 3"], "{file}:5: store2: unknown key; did you mean store?"),
        (BASE, ["--store 3"], "--store: must be a mapping, not 3"),
        (BASE, ["--runtime.x 3"], "{file} with --runtime.x: runtime: must be one of ray, serial, not {{x: 3}}"),
        (
            BASE,
            ["--store.capacity.x 3"],
            "--store.capacity.x: store.capacity is a single value here and has no keys; set store.capacity itself",
        ),
        # missing
        ("algorithm: {type: sgd}\n", [], "{file}: store: missing; set it"),
        ("store: {}\nalgorithm: {type: sgd}\n", [], "{file}:1: store.capacity: missing; set it (Records kept.)"),
        ("store: {capacity: 1}\n", [], "{file}: algorithm.type: missing; give one of sgd or module:Class"),
        ("", [], "{file}: algorithm.type: missing; give one of sgd or module:Class"),
        # contradictions name both fields, the file and the options that led there
        (
            BASE + "  soft: 0.1\n",
            ["--algorithm.hard 3"],
            "{file}:3 with --algorithm.hard: algorithm: soft and hard contradict each other: set one of them",
        ),
        (
            BASE + "peers: [{host: a}]\n",
            ["--runtime serial"],
            "{file} with --runtime: runtime serial contradicts peers: drop one of them",
        ),
        (
            BASE,
            ["--store.min-size 13"],
            "{file}:1 with --store.min_size: store.min_size is 13, which nobody can explain",
        ),
        # algorithm.type
        (
            BASE,
            ["--algorithm.type sdg"],
            "--algorithm.type: no algorithm 'sdg'; did you mean sgd?; give one of sgd or module:Class",
        ),
        (BASE, ["--algorithm.type 3"], "--algorithm.type: must be text, not 3; give one of sgd or module:Class"),
        (
            BASE,
            ["--algorithm.type no_such.thing:C"],
            "--algorithm.type: no module 'no_such.thing'; start where it can be imported from",
        ),
        (
            BASE,
            ["--algorithm.type math:sin"],
            "--algorithm.type: 'sin' in module 'math' must be a msgspec.Struct class",
        ),
        # not a config at all
        ("- 1\n", [], "{file}: not a mapping; a config is made of `key: value` lines"),
        ("a: [\n", [], "{file}:2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\na: 2\n", [], "{file}:2: a: given twice, first in line 1; remove one"),
    ],
)
def test_every_refusal_is_one_line(load_text, tmp_path, text, overrides, message):
    assert the_error(load_text, text, *overrides) == message.format(file=tmp_path / "c.yaml")


def test_unreadable_files(tmp_path):
    assert the_error(load, Root, tmp_path / "none.yaml").startswith(
        f"{tmp_path}/none.yaml: cannot read it: No such file"
    )
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert the_error(load, Root, tmp_path / "binary.yaml").endswith("not UTF-8 text; is this a YAML file?")


@pytest.mark.parametrize("name", ["--algorithm.", "--.x", "--a..b"])
def test_options_need_whole_names(name):
    assert the_error(Override.parse, name, "1") == f"{name}: not a dotted option; write it as --section.key VALUE"


def test_a_value_that_is_not_yaml_names_its_option():
    assert the_error(Override.parse, "--a.b", "[1,").startswith("--a.b: not valid YAML: ")
    assert the_error(Override.parse, "--a.b", "1e999") == "--a.b: '1e999' is not a finite number"


def test_algorithm_modules_that_fail_to_import(load_text, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import a_library_nobody_has\n")
    (tmp_path / "needs_torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    assert the_error(load_text, BASE, "--algorithm.type needs_torch:C").endswith("pip install 'headrace[train]'")
    (tmp_path / "broken_algorithm.py").write_text("1 / 0\n")
    assert the_error(load_text, BASE, "--algorithm.type needs_more:C") == (
        "--algorithm.type: 'needs_more:C' needs a_library_nobody_has; pip install a_library_nobody_has"
    )
    assert "importing 'broken_algorithm' failed: ZeroDivisionError" in the_error(
        load_text, BASE, "--algorithm.type broken_algorithm:C"
    )


def test_a_struct_without_an_algorithm(load_text):
    config = load_text("address: 127.0.0.1:0\n", "--store.capacity 6", root=Plain, algorithms=None).config
    assert config == Plain(address="127.0.0.1:0", store=Store(capacity=6))
    assert load(Plain, None, [Override(("address",), "here")]).config == Plain(address="here")


TRICKY = Root(
    store=Store(
        capacity=1, options={"a b": None, "deep": {"x": [1.5, "1e6", "on"]}, "none": {}}, names=["null", "3", ""]
    ),
    algorithm=Sgd(learning_rate=1e-5, soft=1e22, layers=(1,)),
    peers=(Peer(host="a: b"), Peer(host="line\nbreak # no comment")),
    note="'quotes\" and \\ and é",
)


@pytest.mark.parametrize("text_of", [dump_yaml, lambda config: show(Loaded(config, {"store.capacity": "f.yaml:1"}))])
@pytest.mark.parametrize("config", [TRICKY, msgspec.structs.replace(TRICKY, algorithm=Untyped(width=9))])
def test_a_written_config_loads_to_an_equal_one(load_text, text_of, config):
    assert load_text(text_of(config)).config == config


def test_show_gives_every_value_its_source(load_text):
    loaded = load_text(BASE + "  layers: [4]\n", "--store.min-size 5")
    lines = {line.split(":")[0].strip(): " ".join(line.split()) for line in show(loaded).splitlines()}
    assert lines["capacity"] == "capacity: 100 # [c.yaml:2] Records kept."
    assert lines["min_size"] == "min_size: 5 # [command line]"
    assert lines["layers"] == "layers: [4] # [c.yaml:5]"
    assert lines["learning_rate"] == "learning_rate: 0.1 # [default of sgd] Step size."
    assert lines["runtime"] == "runtime: ray # [default]"


def test_configs_are_found_by_path_and_by_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_config("cartpole_dqn")
    assert shipped.is_file()
    assert find_config("cartpole_dqn.yaml") == find_config("distributed/configs/cartpole_dqn.yaml") == shipped
    Path("cartpole_dqn").write_text("own: 1\n")
    assert find_config("cartpole_dqn") == Path("cartpole_dqn")
    error = the_error(find_config, "cartpole_dqm")
    assert error.startswith("cartpole_dqm: no such file; did you mean cartpole_dqn?; shipped configs: ")
    assert "movie_pick_dqn" in error
    assert the_error(find_config, "elsewhere/cartpole_dqn.yaml").startswith("elsewhere/cartpole_dqn.yaml: no such file")
    assert "is a directory" in the_error(find_config, str(tmp_path))
