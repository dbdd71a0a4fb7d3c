"""Wrong usage: exit code 2, one line with the remedy, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from distributed import cli
from distributed.arguments import Grammar, parse
from replay_server.errors import ConfigError, WorkerDied

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def headrace(*arguments, cwd=None):
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


def test_a_whole_process_ends_the_same_way(tmp_path):
    done = headrace("train", "--algorithm.gama", "1", cwd=tmp_path)
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

    monkeypatch.setitem(cli._COMMANDS, "fail", (fail, Grammar(), ""))
    assert cli.main(["fail"]) == code
    assert capfd.readouterr().err == says


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["train", "--help"], ["evaluate", "-h"], ["--version"]])
def test_help_is_short_and_ends_well(arguments, capfd):
    assert cli.main(arguments) == 0
    out, err = capfd.readouterr()
    assert "headrace" in out and len(out.splitlines()) < 15 and err == ""


def test_config_show_names_sources_and_is_a_config(tmp_path):
    done = headrace("config", "show", "cartpole_dqn", "--run.seed", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [seed] = [line for line in done.stdout.splitlines() if line.startswith("  seed:")]
    assert seed.startswith("  seed: 7 ") and "[command line]" in seed
    (tmp_path / "shown.yaml").write_text(done.stdout)
    again = headrace("config", "show", "shown.yaml", cwd=tmp_path)

    def values(text):
        return [line.partition("#")[0].rstrip() for line in text.splitlines()]

    assert values(again.stdout) == values(done.stdout)


def test_a_reader_that_closes_early_is_no_error(tmp_path):
    script = f"'{sys.executable}' '{ROOT}/headrace.py' config show cartpole_dqn | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[1] == "0" and done.stderr == ""


def test_arguments_are_taken_apart():
    grammar = Grammar(("[CONFIG]",), ("run-dir",), ("json",), settings=True)
    found = parse(
        ["x.yaml", "--run-dir=a=b", "--json", "--a.b-c", "-1", "--a.d=[1, 2]", "--runtime", "serial"], grammar
    )
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
        (["-x"], "-x: unknown option"),
    ]:
        with pytest.raises(ConfigError, match=says):
            parse(wrong, grammar)
