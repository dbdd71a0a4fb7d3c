"""Every field of the config does something: change it, and what a run leaves behind changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import ray
from kit.fake_processes import FakeProcesses
from kit.runs import metric_rows, play, replay_digest, weights_digest

from actors.environments import EnvironmentConfig
from actors.evaluator import EvaluationConfig
from distributed import learner_worker, ray_processes, ray_runtime, ray_session, replay_access, shard_plan
from distributed.build import make_spec, make_task, resolve_device
from distributed.cli import main
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from distributed.config_loading import dump_yaml
from distributed.config_types import field_types, sentence, struct_in
from distributed.identity import Identity
from distributed.loading import load_experiment
from distributed.processes import Role
from distributed.raw_config import Override
from distributed.replay_access import ReplayAccess
from distributed.run_directory import RunDirectory
from distributed.runtime import Origin
from distributed.serial_runtime import SerialRuntime
from distributed.train import _make_runtime, train
from learners.algorithms.dqn import DQNConfig
from replay_server.errors import ConfigError

BASE = ExperimentConfig(
    runtime="serial",
    environment=EnvironmentConfig(id="headrace/MoviePick10-v0", num_envs=4, max_episode_steps=20),
    algorithm=DQNConfig(
        target_update_tau=0.05,
        hidden_sizes=(8,),
        batch_size=16,
        reward_scale=0.1,
        huber_delta=0.2,
        epsilon_anneal_env_steps=250,
    ),
    replay=ReplayConfig(shards=2, capacity=300, min_size=64),
    actors=ActorsConfig(count=2, records_per_insert=8),
    learner=LearnerConfig(samples_per_insert=1.0, publish_every_updates=4),
    evaluation=EvaluationConfig(episodes=2, every_env_steps=150, final_episodes=3),
    run=RunConfig(total_env_steps=400, checkpoint_every_env_steps=150, metrics_every_env_steps=100),
)


def fields_of(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, annotation in field_types(struct).items():
        inner = DQNConfig if prefix + name == "algorithm" else struct_in(annotation)
        if inner is None:
            yield prefix + name, annotation
        else:
            yield from fields_of(inner, f"{prefix}{name}.")


def changed(config: ExperimentConfig, changes: dict[str, Any]) -> ExperimentConfig:
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        part, _, last = name.rpartition(".")
        parts.setdefault(part, {})[last] = value
    new = parts.pop("", {})
    new |= {part: msgspec.structs.replace(getattr(config, part), **values) for part, values in parts.items()}
    return msgspec.structs.replace(config, **new)


@dataclass(frozen=True)
class Change:
    """A new value, the part of the outcome it must change, and what the run it is compared with has set too."""

    value: Any
    shows_in: str
    given: dict[str, Any] = field(default_factory=dict)


DECAY = {"algorithm.final_learning_rate": 1e-5, "algorithm.learning_rate_decay_env_steps": 400}
BOLTZMANN = {"algorithm.exploration": "boltzmann", "algorithm.epsilon_anneal_env_steps": 10_000}
MLP = {"algorithm.action_values": "embedding_mlp", "algorithm.item_embedding": "learnt"}
DOT = {"algorithm.action_values": "embedding_dot", "algorithm.item_embedding": "learnt"}
RESTARTS = {**DECAY, "algorithm.learning_rate_decay": "restarts", "algorithm.learning_rate_decay_env_steps": 40}
SGD = {"algorithm.optimizer": "sgd"}
LOOKAHEAD = {"algorithm.lookahead_period_updates": 3}
HARD = {"algorithm.target_update_tau": None, "algorithm.target_update_period_updates": 5}
STACKED = {
    "environment.id": "CartPole-v1",
    "environment.wrappers": ["kit.worlds:LastThree"],
    "algorithm.torso": "gru",
    "algorithm.encoder_size": 8,
}

RUNS = {
    "environment.id": Change("CartPole-v1", "weights"),
    "environment.num_envs": Change(3, "replay"),
    "environment.kwargs": Change({"click_satiation": 2.0}, "replay"),
    "environment.wrappers": Change(["gymnasium.wrappers.NormalizeReward"], "replay", {"environment.id": "CartPole-v1"}),
    "environment.max_episode_steps": Change(10, "replay"),
    "environment.normalise_observations": Change(True, "replay"),
    "environment.normalise_rewards": Change(True, "metrics", {"algorithm.reward_scale": 1.0}),
    "algorithm.gamma": Change(0.9, "replay"),
    "algorithm.n_step": Change(1, "replay"),
    "algorithm.reward_scale": Change(0.2, "replay"),
    "algorithm.double": Change(False, "weights"),
    "algorithm.dueling": Change(False, "weights"),
    "algorithm.hidden_sizes": Change((8, 8), "weights"),
    "algorithm.activation": Change("tanh", "weights"),
    "algorithm.torso": Change("cfn", "weights", STACKED),
    "algorithm.encoder_size": Change(4, "weights", STACKED),
    "algorithm.attention_heads": Change(4, "weights", STACKED | {"algorithm.torso": "attention"}),
    "algorithm.attention_layers": Change(2, "weights", STACKED | {"algorithm.torso": "attention"}),
    "algorithm.embedding_size": Change(8, "weights", {"environment.kwargs": {"obs_mode": "ids"}}),
    "algorithm.batch_size": Change(17, "weights"),
    "algorithm.learning_rate": Change(2e-3, "weights"),
    "algorithm.final_learning_rate": Change(1e-4, "weights", DECAY),
    "algorithm.learning_rate_decay_env_steps": Change(200, "weights", DECAY),
    "algorithm.learning_rate_decay": Change("cosine", "weights", DECAY),
    "algorithm.learning_rate_restart_growth": Change(3.0, "weights", RESTARTS),
    "algorithm.optimizer": Change("radam", "weights"),
    "algorithm.adam_epsilon": Change(1e-3, "weights"),
    "algorithm.momentum": Change(0.5, "weights", SGD),
    "algorithm.weight_decay": Change(0.01, "weights"),
    "algorithm.lookahead_period_updates": Change(5, "weights", LOOKAHEAD),
    "algorithm.lookahead_alpha": Change(0.2, "weights", LOOKAHEAD),
    "algorithm.loss": Change("mse", "weights", {"algorithm.huber_delta": 1.0}),
    "algorithm.huber_delta": Change(0.3, "weights"),
    "algorithm.target_update_tau": Change(0.5, "weights"),
    "algorithm.target_update_period_updates": Change(9, "weights", HARD),
    "algorithm.max_grad_norm": Change(0.01, "weights"),
    "algorithm.importance_beta": Change(0.8, "weights"),
    "algorithm.final_importance_beta": Change(0.5, "weights"),
    "algorithm.importance_beta_env_steps": Change(300, "weights"),
    "algorithm.diagnose_every_updates": Change(3, "metrics"),
    "algorithm.priority_epsilon": Change(1.0, "priorities"),
    "algorithm.actor_priorities": Change(False, "priorities"),
    "algorithm.epsilon_base": Change(0.9, "replay"),
    "algorithm.epsilon_alpha": Change(1.0, "replay"),
    "algorithm.epsilon_anneal_env_steps": Change(50, "replay"),
    "algorithm.exploration": Change("boltzmann", "replay", {"algorithm.epsilon_anneal_env_steps": 10_000}),
    "algorithm.temperature": Change(1.0, "replay", BOLTZMANN),
    "algorithm.evaluation_actions": Change("sampled", "metrics", BOLTZMANN),
    "algorithm.action_values": Change("embedding_dot", "weights", MLP),
    "algorithm.item_hidden_size": Change(5, "weights", MLP),
    "algorithm.normalise_embeddings": Change(True, "weights", DOT),
    "replay.shards": Change(1, "files"),
    "replay.capacity": Change(100, "size"),
    "replay.sampler": Change("uniform", "weights", {"replay.priority_exponent": 0.0}),
    "replay.priority_exponent": Change(0.0, "weights"),
    "replay.min_size": Change(200, "updates"),
    "actors.count": Change(3, "replay"),
    "actors.records_per_insert": Change(32, "weights"),
    "learner.samples_per_insert": Change(2.0, "updates"),
    "learner.updates_per_batch": Change(2, "updates"),
    "learner.publish_every_updates": Change(8, "versions"),
    "evaluation.episodes": Change(4, "metrics"),
    "evaluation.every_env_steps": Change(100, "metrics"),
    "evaluation.final_episodes": Change(5, "final evaluation"),
    "run.seed": Change(1, "weights"),
    "run.total_env_steps": Change(200, "env steps"),
    "run.max_seconds": Change(20.0, "stopped by"),
    "run.stop_at_return": Change(-1e9, "stopped by"),
    "run.checkpoint_every_env_steps": Change(120, "files"),
    "run.keep_checkpoints": Change(3, "files", {"run.checkpoint_every_env_steps": 100}),
    "run.metrics_every_env_steps": Change(50, "metrics"),
    "run.prometheus": Change(True, "files"),
}


def left_by(config: ExperimentConfig, path: Path) -> dict[str, Any]:
    """Run an experiment; returns everything it left, in parts."""
    result, run = play(config, path), RunDirectory(path)
    newest = run.complete_checkpoints()[-1]
    files = (p.relative_to(path) for p in path.rglob("*") if p.is_file() and "tensorboard" not in p.parts)
    return {
        "weights": weights_digest(newest / "learner.safetensors"),
        "replay": [replay_digest(file, "columns") for file in sorted(newest.glob("replay-*.h5"))],
        "priorities": [replay_digest(file, "priorities") for file in sorted(newest.glob("replay-*.h5"))],
        "metrics": metric_rows(path),
        "files": sorted(map(str, files)),
        "final evaluation": result["evaluation"],
        "env steps": result["env_steps"],
        "updates": result["updates"],
        "versions": result["weights_version"],
        "size": result["replay_size"],
        "stopped by": result["stopped_by"],
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What the base run with some changes left; each set of changes is run once."""
    known: dict[str, dict[str, Any]] = {}

    def outcome(changes: dict[str, Any]) -> dict[str, Any]:
        key = repr(sorted(changes.items()))
        if key not in known:
            known[key] = left_by(changed(BASE, changes), tmp_path_factory.mktemp("run") / "run")
        return known[key]

    return outcome


def test_the_same_run_twice_leaves_the_same(
    outcome: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    """Else the tests below could see a difference that no field made."""
    assert left_by(BASE, tmp_path / "run") == outcome({})
    assert outcome({})["updates"] > 20


@pytest.mark.parametrize("name", RUNS)
def test_a_field_changes_the_run(name: str, outcome: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    change = RUNS[name]
    before = outcome(change.given)
    after = outcome({**change.given, name: change.value})
    assert after[change.shows_in] != before[change.shows_in]


class Seen(BaseException):
    """Ends a call where a replaced function was reached, past all handlers, and carries what it was called with."""


def tell(*arguments: Any, **options: Any) -> Any:
    raise Seen(arguments, options)


def seen(call: Callable[[], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    with pytest.raises(Seen) as caught:
        call()
    arguments, options = caught.value.args
    return arguments, options


def ray_config(**changes: Any) -> ExperimentConfig:
    return changed(BASE, {"runtime": "ray", **{name.replace("__", "."): value for name, value in changes.items()}})


def begin_learner(config: ExperimentConfig) -> None:
    learner_worker.LearnerWorker(Identity("test", Path(), Role.LEARNER)).begin(
        config, ReplayAccess({0: "127.0.0.1:1"}, None), None, learner_worker.LearnerPlace(), Path()
    )  # type: ignore[arg-type]


def see_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    assert isinstance(_make_runtime(BASE, run), SerialRuntime)
    assert isinstance(_make_runtime(ray_config(), run), ray_runtime.RayRuntime)


def see_algorithm_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_algorithm.py").write_text(
        "from learners.algorithms.dqn import DQNConfig\n\n\n"
        "class Mine(DQNConfig, frozen=True, kw_only=True):\n    knob: int = 3\n"
    )
    (tmp_path / "base.yaml").write_text(dump_yaml(BASE))
    monkeypatch.syspath_prepend(tmp_path)
    override = Override(("algorithm", "type"), "my_algorithm:Mine")
    assert load_experiment(tmp_path / "base.yaml", [override]).config.algorithm.knob == 3
    assert load_experiment(tmp_path / "base.yaml", ()).config == BASE


def see_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "start_ray", lambda config: False)
    monkeypatch.setattr(ray_runtime, "RayProcesses", lambda *_, **__: FakeProcesses())
    monkeypatch.setattr(replay_access, "connect", tell)
    config = ray_config(replay__shards=1, replay__addresses=("10.0.0.1:7400",))
    runtime = ray_runtime.RayRuntime(config, RunDirectory(tmp_path))
    assert seen(lambda: runtime.start(Origin(None, None, (0, 0), 0)))[0] == (("10.0.0.1:7400",),)


def see_prefetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_access, "connect", tell)
    assert seen(lambda: begin_learner(ray_config(replay__prefetch=3)))[1]["prefetch"] == 3


def see_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_access, "connect", tell)
    assert seen(lambda: begin_learner(ray_config(replay__transport="grpc")))[1]["transport"] == "grpc"


def see_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_plan, "ShardConfig", tell)
    for level in ("checkpoint", "fsync"):
        spec, config = make_spec(BASE, make_task(BASE)), ray_config(replay__durability=level)
        plan = shard_plan.ShardPlan(config, spec, RunDirectory(tmp_path), Origin(None, None, (0, 0), 0))
        assert seen(lambda: plan.shard(0, "127.0.0.1:0"))[1]["durability"] == level  # noqa: B023


def see_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_access, "connect", lambda *_, **__: None)
    monkeypatch.setattr("distributed.build.make_learner", tell)
    monkeypatch.setattr("distributed.build.resolve_device", lambda device: device)
    for device in ("cpu", "cuda"):
        assert seen(lambda: begin_learner(ray_config(learner__device=device)))[1]["device"] == device  # noqa: B023
    with pytest.raises(ConfigError, match=r"learner\.device: 'cuda:99' cannot be used here"):
        resolve_device("cuda:99")


def see_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.set_num_threads", tell)
    assert seen(lambda: begin_learner(ray_config(learner__threads=3)))[0] == (3,)


def see_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_access, "connect", lambda *_, **__: None)
    monkeypatch.setattr("learners.replica_group.ReplicaGroup", tell)
    config, place = ray_config(learner__processes=2), learner_worker.LearnerPlace(rank=1)
    worker: Any = learner_worker.LearnerWorker(Identity("test", Path(), Role.LEARNER))
    access = ReplayAccess({0: "127.0.0.1:1"}, None)
    [membership, _], _ = seen(lambda: worker.begin(config, access, None, place, Path(), "127.0.0.1:2"))
    assert (membership.rank, membership.count, membership.meeting) == (1, 2, "127.0.0.1:2")


def see_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(changed(BASE, {"run.directory": "elsewhere"}), name="mine", run_dir=None, resume=None, seeds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    [run] = (tmp_path / "elsewhere").iterdir()
    assert run.name.startswith("mine-") and (run / "result.json").is_file()


def see_checkpoint_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"file://{tmp_path}/copies/one"
    train(changed(BASE, {"run.checkpoint_url": url}), name="a", run_dir=tmp_path / "a", resume=None, seeds=1)
    copies = sorted(int(path.name) for path in (tmp_path / "copies" / "one" / "checkpoints").iterdir())
    assert copies == [int(path.name) for path in RunDirectory(tmp_path / "a").complete_checkpoints()]
    steps = ["--run.total-env-steps", "500"]
    assert main(["train", "--resume", url, "--run-dir", "b", *steps]) == 0
    assert json.loads((tmp_path / "b" / "result.json").read_text())["env_steps"] >= 500
    assert main(["train", "--resume", url]) == 2


def see_ray_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", tell)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("local", "10.0.0.1:6379"):
        assert seen(lambda: ray_session.start_ray(ray_config(ray__address=address)))[1]["address"] == address  # noqa: B023


def see_init_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = left_by(BASE, tmp_path / "first")
    second = left_by(
        changed(BASE, {"replay.init_from": str(tmp_path / "first"), "replay.capacity": 1000}), tmp_path / "b"
    )
    assert second["size"] > first["size"] and second["replay"] != first["replay"]


def see_working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", tell)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    sent = ray_config(ray__address="auto", ray__working_dir=str(tmp_path))
    env = seen(lambda: ray_session.start_ray(sent))[1]["runtime_env"]
    assert env["working_dir"] == str(tmp_path) and "runs" in env["excludes"]
    with pytest.raises(ConfigError, match=r"ray\.working_dir: .*/none is no directory"):
        ray_session.start_ray(ray_config(ray__address="auto", ray__working_dir=str(tmp_path / "none")))
    (tmp_path / "actors").mkdir()
    (tmp_path / "actors" / "__init__.py").touch()
    with pytest.raises(ConfigError, match="would hide headrace's own 'actors'"):
        ray_session.start_ray(sent)


SUPERVISED = "tests/unit/test_rollout_supervisor.py, tests/unit/test_learner_supervisor.py"


def see_placement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(ray, "remote", lambda cls: SimpleNamespace(options=tell))
    for placement, asked in (("auto", None), ("roles", {"replay": 1})):
        processes = ray_processes.RayProcesses(ray_config(ray__placement=placement), private=False)
        assert seen(lambda: processes.spawn(object, Role.SHARD))[1].get("resources") == asked  # noqa: B023


LOOKS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "runtime": see_runtime,
    "algorithm.type": see_algorithm_type,
    "replay.addresses": see_addresses,
    "replay.prefetch": see_prefetch,
    "replay.init_from": see_init_from,
    "replay.transport": see_transport,
    "replay.durability": see_durability,
    "learner.device": see_device,
    "learner.threads": see_threads,
    "learner.processes": see_processes,
    "run.directory": see_directory,
    "run.checkpoint_url": see_checkpoint_url,
    "ray.address": see_ray_address,
    "ray.placement": see_placement,
    "ray.working_dir": see_working_dir,
}
"""Fields that act under Ray only, or outside the run itself: where each one arrives."""


@pytest.mark.parametrize("name", LOOKS)
def test_a_field_arrives_where_it_acts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LOOKS[name](tmp_path, monkeypatch)


ELSEWHERE = {
    "algorithm.discount_hours": "tests/unit/test_accumulators.py",
    "algorithm.max_skipped_updates": "tests/unit/test_dqn.py",
    "algorithm.item_embedding": "tests/unit/test_item_values.py",
    "replay.unreachable_seconds": SUPERVISED,
    "actors.hang_seconds": SUPERVISED,
    "actors.max_weight_lag": "tests/unit/test_weight_lag.py",
    "actors.on_weight_lag": "tests/unit/test_weight_lag.py",
    "learner.hang_seconds": SUPERVISED,
}
"""Fields that act only when something goes wrong, or with items or hours that this environment has not; where that is
tested."""


def test_no_field_is_left_out() -> None:
    assert sorted([*RUNS, *LOOKS, *ELSEWHERE]) == sorted(name for name, _ in fields_of(ExperimentConfig))


def test_every_field_says_what_it_means() -> None:
    """One sentence, which `headrace config show` prints."""
    said = {name: sentence(annotation) for name, annotation in fields_of(ExperimentConfig)}
    assert [name for name, words in said.items() if not words.endswith(".") or len(words) > 130] == []
