"""Wrong usage: exit code 2, one line with the remedy, no traceback."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distributed import cli, preflight
from distributed.arguments import Command, Grammar, parse
from replay_server import Field, RecordSpec, start_server
from replay_server.errors import ConfigError, WorkerDied

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, ROOT / "headrace.py", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "trian: no such command; commands: train, "),
        (["train", "nope"], "nope: no such file; shipped configs: "),
        (["train", "--algorithm.learning-rat", "1"], "--algorithm.learning_rat: unknown key; did you mean algorithm."),
        (["train", "--learning-rate", "1"], "--learning_rate: unknown key; did you mean algorithm.learning_rate?"),
        (["train", "--run.seed", "x"], "--run.seed: must be a whole number, not x"),
        (["train", "--replay.min-size", "9_000_000"], "replay: min_size (9000000) is larger than capacity"),
        (["train", "--run-dir"], "--run-dir: needs a value"),
        (["train", "--sedes", "3"], "--sedes: unknown option; did you mean --seeds?"),
        (["train", "--seeds", "0"], "--seeds: must be a whole number >= 1, not '0'"),
        (["train", "a", "b"], "unexpected argument 'b'"),
        (["train", "cartpole_dqn", "--resume", "."], "--resume: contradicts cartpole_dqn"),
        (["train", "--resume", ".", "--seeds", "2"], "--resume: contradicts --seeds"),
        (["train", "--resume", "."], "not a run directory"),
        (["evaluate"], "evaluate: needs a run directory"),
        (["bench", "learner", "--shards", "2"], "--shards: belongs to bench replay and bench scaling; leave it out"),
        (["evaluate", ".", "--episode", "3"], "--episode: unknown option; did you mean --episodes?"),
        (["serve-replay"], "serve-replay: needs a shard's config"),
        (["serve-replay", "nope.yaml"], "nope.yaml: cannot read it: No such file or directory; check the path"),
        (["config"], "config: needs `show`"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("headrace: error: ") and says in line
    assert list(tmp_path.iterdir()) == []


WORLDS = """\
import gymnasium, numpy as np

class Image(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

class Several(Image):
    observation_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)])

class Broken(Image):
    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.full(2, np.nan, np.float32), 0.0, False, False, {}
"""


@pytest.fixture
def worlds(tmp_path, monkeypatch):
    """A directory with a module of environments that do not fit, which Python finds only there."""
    (tmp_path / "ill_fitting_worlds.py").write_text(WORLDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("ill_fitting_worlds", None)


@pytest.mark.parametrize("runtime", ["ray", "serial"])
@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("environment.id", "CartPole", "environment.id CartPole does not exist (any more); use CartPole-v1"),
        ("environment.id", "Ghost-v1", "environment.id Ghost-v1 is not a registered Gymnasium id; the nearest is "),
        ("environment.id", "LunarLander-v2", "environment.id LunarLander-v2 does not exist (any more); use LunarL"),
        ("environment.id", "ill_fitting_worlds:Imgae", "has neither a class nor a Gymnasium id Imgae; did you mean "),
        ("environment.id", "ill_fitting_worlds:Image", "environment.id: its observations have shape [8, 8, 3], nat"),
        ("environment.id", "ill_fitting_worlds:Several", "environment.id: observation space Tuple is neither one"),
        ("environment.id", "Pendulum-v1", "algorithm.type: dqn takes Discrete actions from 0, the"),
        ("environment.wrappers", "[gymnasium.wrappers.FlatenObservation]", "did you mean FlattenObservation?"),
        ("environment.kwargs", "{sead: 1}", "environment.kwargs {'sead': 1} do not fit CartPole-v1: "),
        ("environment.num_envs", "0", "environment.num_envs: must be a whole number >= 1, not 0 (Environments of "),
        (
            "algorithm.type",
            "dqm",
            "algorithm.type: no algorithm 'dqm'; did you mean dqn?; give one of bcq, ",
        ),
        ("algorithm.loss", "hubber", "algorithm.loss: must be one of huber, mse, not hubber; did you mean huber?"),
        ("algorithm.target_update_period_updates", "9", "set exactly one of target_update_tau (soft) and target_up"),
        ("replay.shards", "2", "replay.shards (2) is larger than actors.count (1)"),
        ("run.directory", "ill_fitting_worlds.py", "--run-dir: cannot make ill_fitting_worlds.py/cartpole_dqn-"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_made(setting, value, says, runtime, worlds, capfd):
    assert cli.main(["train", "cartpole_dqn", "--runtime", runtime, f"--{setting}", value]) == 2
    assert_one_line(capfd, says)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert [path.name for path in worlds.iterdir() if path.name != "__pycache__"] == ["ill_fitting_worlds.py"]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("learner.device", "tpu", "learner.device: must be one of auto, cpu, cuda, not tpu"),
        ("learner.device", "cuda:1", "learner.device: must be one of auto, cpu, cuda, not cuda:1; did you mean cuda?"),
        ("replay.addresses", "[127.0.0.1:{port}]", "replay.addresses: no replay shard answered at 127.0.0.1:{port}"),
        ("replay.addresses", "[here]", "replay.addresses.0: must be text"),
        ("ray.address", "127.0.0.1:{port}", "ray.address: nothing answers at '127.0.0.1:{port}' ("),
        ("ray.address", "locl", "ray: address is 'locl'; it must be local, auto or HOST:PORT"),
    ],
)
def test_places_where_nothing_is_are_named(setting, value, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "_CONNECT_SECONDS", 0.3)
    with socket.socket() as bound:  # bound and not listening: nothing can answer there meanwhile
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert cli.main(["train", "cartpole_dqn", f"--{setting}", value.replace("{port}", port)]) == 2
    assert_one_line(capfd, says.replace("{port}", port))
    assert list(tmp_path.iterdir()) == []


def test_shards_of_another_run_are_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    spec = RecordSpec((Field("observation", "float32", (3,)),))
    with start_server(spec, capacity=10) as server:
        assert cli.main(["train", "cartpole_dqn", "--replay.addresses", f"[{server.address}]"]) == 2
    assert_one_line(capfd, f"replay.addresses: shard at {server.address} holds other records: field 'action' is ")
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_is_named_with_its_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("environment: {id: CartPole-v1}\nalgorithm:\n  type: dqn\n  gama: 1\n")
    assert cli.main(["train", "mine.yaml"]) == 2
    assert_one_line(capfd, "mine.yaml:4: algorithm.gama: unknown key; did you mean algorithm.gamma?")


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_a_directory_with_something_in_it_is_left_alone(seeds, tmp_path, capfd):
    kept = tmp_path / "seed-0" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("all of it")
    directory = tmp_path if seeds == "2" else kept.parent
    assert cli.main(["train", "cartpole_dqn", "--run-dir", str(directory), "--seeds", seeds]) == 2
    assert_one_line(capfd, "--run-dir: ")
    assert kept.read_text() == "all of it" and list(tmp_path.rglob("*")) == [kept.parent, kept]


def assert_one_line(capfd, says):
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("headrace: error: ") and says in line


def test_a_taken_port_is_one_line_and_nothing_stays(headrace, tmp_path):
    (tmp_path / "shard.yaml").write_text(
        "spec: {fields: [{name: reward, dtype: float32, shape: []}]}\ncapacity: 10\naddress: 127.0.0.1:0\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = headrace("serve-replay", "shard.yaml", "--address", address)
        code, output, errors = command.finish(60)
    assert (code, output) == (2, "") and len(errors.splitlines()) == 1
    assert errors.startswith(f"headrace: error: address: cannot listen on {address}: the port is taken")
    assert command.descendants() == []


def test_an_environment_that_breaks_while_running_ends_the_run_with_1(headrace, worlds):
    command = headrace("train", "cartpole_dqn", "--environment.id", "ill_fitting_worlds:Broken", "--runtime", "serial")
    code, output, errors = command.finish(60)
    assert (code, output) == (1, "") and "Traceback" not in errors
    *progress, last = errors.splitlines()
    assert last == "headrace: error: environment SyncVectorEnv, index 0: observation is NaN or infinite"
    assert all(line.startswith("cartpole_dqn: ") for line in progress)
    assert command.descendants() == []


def test_a_whole_process_ends_the_same_way(tmp_path):
    done = run("train", "--algorithm.gama", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "headrace: error: --algorithm.gama: unknown key; did you mean algorithm.gamma?\n"


def test_debug_adds_the_traceback(capfd):
    assert cli.main(["train", "nope", "--debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith("headrace: error: nope: no such file")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (WorkerDied("the learner has died"), 1, "headrace: error: the learner has died\n"),
        (ConfigError("two\nlines"), 2, "headrace: error: two lines\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "headrace: error: unexpected ZeroDivisionError: by zero; run again with --debug for the traceback\n",
        ),
        (
            ModuleNotFoundError("", name="torch"),
            2,
            "headrace: error: this command needs the module torch, which is not installed; "
            "pip install 'headrace[train]'\n",
        ),
        (KeyboardInterrupt(), 1, "headrace: error: interrupted before an orderly stop\n"),
    ],
)
def test_exit_codes(monkeypatch, capfd, error, code, says):
    def fail(_):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "fail", Command(fail, Grammar(), ""))
    assert cli.main(["fail"]) == code
    assert capfd.readouterr().err == says


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["train", "--help"], ["evaluate", "-h"], ["--version"]])
def test_help_is_short_and_ends_well(arguments, capfd):
    assert cli.main(arguments) == 0
    out, err = capfd.readouterr()
    assert "headrace" in out and len(out.splitlines()) < 15 and err == ""


def test_config_show_names_sources_and_is_a_config(tmp_path):
    done = run("config", "show", "cartpole_dqn", "--run.seed", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [seed] = [line for line in done.stdout.splitlines() if line.startswith("  seed:")]
    assert seed.startswith("  seed: 7 ") and "[command line]" in seed
    (tmp_path / "shown.yaml").write_text(done.stdout)
    again = run("config", "show", "shown.yaml", cwd=tmp_path)

    def values(text):
        return [line.partition("#")[0].rstrip() for line in text.splitlines()]

    assert values(again.stdout) == values(done.stdout)


def test_a_reader_that_closes_early_is_no_error(tmp_path):
    script = f"'{sys.executable}' '{ROOT}/headrace.py' config show cartpole_dqn | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[1] == "0" and done.stderr == ""


def test_arguments_are_taken_apart():
    grammar = Grammar(("[CONFIG]",), ("run-dir",), ("json",), ("peer",), settings=True)
    found = parse(
        [
            *["x.yaml", "--run-dir=a=b", "--peer=c=d", "--json", "--a.b-c", "-1", "--a.d=[1, 2]"],
            *["--peer", "e", "--runtime", "serial"],
        ],
        grammar,
    )
    assert found.lists == {"peer": ["c=d", "e"]}
    assert found.positionals == ["x.yaml"] and found.options == {"run-dir": "a=b"} and found.switches == {"json"}
    assert [(o.keys, o.value) for o in found.overrides] == [
        (("a", "b_c"), -1),
        (("a", "d"), [1, 2]),
        (("runtime",), "serial"),
    ]
    for wrong, says in [
        (["--json=1"], "--json: takes no value"),
        (["--run-dir", "a", "--run-dir", "b"], "--run-dir: given twice"),
        (["--a.b", "--c.d", "1"], "--a.b: needs a value"),
        (["--peer"], "--peer: needs a value"),
        (["-x"], "-x: unknown option"),
    ]:
        with pytest.raises(ConfigError, match=says):
            parse(wrong, grammar)


RAY_PRINTS = """\
import sys
from distributed import cli
cli.main(["--version"])
from ray._private.worker import print_to_stdstream
for line in ("WARNING: 8 PYTHON worker processes have been started on node: 1f", "out of memory"):
    print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
"""


def test_rays_warning_of_many_workers_is_not_printed_and_others_are():
    done = subprocess.run([sys.executable, "-c", RAY_PRINTS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "out of memory" in done.stdout and "worker processes" not in done.stdout
