"""The base install, without torch and ray: serve a shard, insert, sample, stop."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SHARD = """\
address: 127.0.0.1:0
spec:
  fields: [{name: observation, dtype: float32, shape: [3]}, {name: action, dtype: int64}]
  semantics: {gamma: "0.9"}
capacity: 100
"""
CLIENT = """\
import sys
import numpy as np
from replay_server import Field, RecordSpec, connect

spec = RecordSpec((Field("observation", "float32", (3,)), Field("action", "int64")), {"gamma": "0.9"})
with connect([sys.argv[1]], spec=spec) as replay:
    observation = np.arange(30, dtype=np.float32).reshape(10, 3)
    ack = replay.insert({"observation": observation, "action": np.arange(10)})
    batch = replay.sample(64)
    assert (batch.columns["observation"][:, 0] == 3 * batch.columns["action"]).all()
    print(ack.accepted, len(batch), batch.table_size)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The bin directory of a virtual environment with the base install only, built from a copy of the sources."""
    directory = tmp_path_factory.mktemp("bare")
    sources = directory / "sources"
    sources.mkdir()
    for name in ("headrace.py", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / name, sources)
    for name in ("replay_server", "learners", "actors", "distributed"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True, timeout=120)
    bin_directory = directory / "venv" / "bin"
    install = [bin_directory / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, sources, "--constraint", sources / "constraints.txt"], check=True, timeout=280)
    return bin_directory


@pytest.fixture(autouse=True)
def away_from_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_torch_and_ray_are_not_there(bare):
    names = ["torch", "ray", "gymnasium", "safetensors"]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert run(bare / "python", "-c", code).stdout == "[]\n"


def test_a_shard_serves_and_stops(bare):
    Path("shard.yaml").write_text(SHARD)
    shard = subprocess.Popen(
        [bare / "headrace", "serve-replay", "shard.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = shard.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)
        assert address, line + shard.stderr.read()
        client = run(bare / "python", "-c", CLIENT, address[0])
        assert client.stdout == "10 64 10\n", client.stderr
        shard.send_signal(signal.SIGTERM)
        _, errors = shard.communicate(timeout=20)
        assert (shard.returncode, errors) == (0, "")
    finally:
        shard.kill()
        shard.wait()


@pytest.mark.parametrize("command", [["train"], ["evaluate", "."], ["config", "show"]])
def test_what_needs_more_says_what_to_install(bare, command):
    done = run(bare / "headrace", *command)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.endswith("is not installed; pip install 'headrace[train]'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SHARD.replace("capacity", "capacty"), "shard.yaml:5: capacty: unknown key; did you mean capacity?"),
        (SHARD.replace("float32", "float33"), "shard.yaml: spec: field 'observation': 'float33' is not a numpy dtype"),
        (SHARD.replace("127.0.0.1:0", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_shard_config_is_refused_in_one_line(bare, text, says):
    Path("shard.yaml").write_text(text)
    done = run(bare / "headrace", "serve-replay", "shard.yaml")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("headrace: error: ") and says in line


def test_shipped_files_are_in_the_wheel(bare):
    [package] = (bare.parent / "lib").glob("python3*/site-packages/distributed")
    assert (package / "py.typed").is_file()
    assert (package / "configs" / "movie_pick_dqn.yaml").is_file()
