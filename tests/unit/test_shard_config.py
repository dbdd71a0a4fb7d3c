"""The configuration of a stand-alone shard: every field arrives, wrong ones are refused."""

import msgspec
import numpy as np
import pytest

from replay_server import (
    CheckpointError,
    ConfigError,
    Field,
    RateLimiter,
    RecordSpec,
    SchemaMismatch,
    Unauthenticated,
    connect,
    start_server,
)
from replay_server.messages import InsertRequest, SampleRequest, Updates
from replay_server.shard_config import RateLimiterConfig, ShardConfig, SpecConfig
from replay_server.shard_making import make_shard, memory_budget

SPEC = RecordSpec((Field("observation", "float32", (8,)), Field("action", "int64")), {"gamma": "0.99"})

YAML = """
spec: {fields: [{name: observation, dtype: float32, shape: [8]}, {name: action, dtype: int64, shape: []}],
       semantics: {gamma: "0.99"}}
capacity: 1000
table: critics
priority_exponent: 0.5
sampler: multinomial
rate_limiter: {min_size: 10, samples_per_insert: 8.0, error_buffer: 40.0}
seed: 4
shard_index: 3
"""


def test_every_field_reaches_the_shard():
    config = msgspec.yaml.decode(YAML, type=ShardConfig)
    shard = make_shard(config).shard
    assert shard.table.spec == SPEC
    assert (shard.table.capacity, shard.table.shard) == (1000, 3)
    assert shard.limiter == RateLimiter(10, 8.0, 40.0)
    assert config.table == "critics"
    base = draws(config)
    for changes in ({"seed": 5}, {"priority_exponent": 0.9}, {"sampler": "stratified"}, {"sampler": "fifo"}):
        assert (draws(msgspec.structs.replace(config, **changes)) != base).any(), changes


def test_a_queue_and_a_remover_reach_the_table():
    settings = {"remover": "lowest_priority", "max_times_sampled": 1, "sampler": "lifo"}
    config = msgspec.convert(
        {"spec": SpecConfig.of(SPEC), "capacity": 20, "rate_limiter": {"queue_size": 20}, **settings}, ShardConfig
    )
    shard = make_shard(config).shard
    assert (shard.limiter, shard.table.max_times_sampled) == (RateLimiter.queue(20), 1)
    rows = SPEC.pack({"observation": np.zeros((20, 8), np.float32), "action": np.arange(20)})
    shard.insert(InsertRequest(rows, None, None, 0.0))
    assert shard.insert(InsertRequest(rows[:1], None, None, 0.0)).blocked_on == "samples"
    drawn = shard.sample(SampleRequest(np.array([3]), 3.0, Updates(), 0.0))
    assert list(SPEC.columns(drawn.records)["action"]) == [19, 18, 17]
    lowest = make_shard(msgspec.structs.replace(config, rate_limiter=RateLimiterConfig())).shard
    lowest.insert(InsertRequest(rows, np.arange(20.0)[::-1].copy(), None, 0.0))
    lowest.insert(InsertRequest(rows[:1], np.array([50.0]), None, 0.0))
    drawn = lowest.sample(SampleRequest(np.array([19]), 0.0, Updates(), 0.0))
    assert 19 not in SPEC.columns(drawn.records)["action"]


def draws(config):
    shard = make_shard(config).shard
    rows = SPEC.pack({"observation": np.zeros((50, 8), np.float32), "action": np.arange(50)})
    shard.insert(InsertRequest(rows, np.arange(50.0), None, 0.0))
    return SPEC.columns(shard.sample(SampleRequest(np.array([40]), 0.0, Updates(), 0.0)).records)["action"]


@pytest.mark.parametrize("remover", ["fifo", "lowest_priority"])
@pytest.mark.parametrize("times", [None, 3])
def test_memory_is_summed_up_as_it_will_be_taken(remover, times):
    settings = {"capacity": 100_003, "remover": remover, "max_times_sampled": times}
    config = msgspec.convert({"spec": SpecConfig.of(SPEC), **settings}, ShardConfig)
    budget = memory_budget(config)
    table = make_shard(config).shard.table
    assert budget.records == table.records.nbytes
    assert budget.table == pytest.approx(table.overhead_bytes, rel=0.01)
    assert (budget.snapshot > 0, budget.messages > 0, budget.journal) == (True, True, 0)
    assert memory_budget(msgspec.structs.replace(config, durability="fsync", directory="d")).journal == 4 * 100_003


def test_every_field_of_the_server_reaches_it(tmp_path):
    saved = tmp_path / "replay-0.h5"
    with start_server(SPEC, 20) as first, connect([first.address], prefetch=0) as replay:
        replay.insert({"observation": np.ones((4, 8), np.float32), "action": np.arange(4)})
        first.shard.save(str(saved))
        with pytest.raises(CheckpointError, match="without a directory"):
            replay.save(str(tmp_path))
        address = first.address
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    token.chmod(0o600)
    (tmp_path / "saves").mkdir()
    settings = {
        "restore_from": str(saved),
        "directory": str(tmp_path / "saves"),
        "token_file": str(token),
        "metrics_port": 0,
    }
    with start_server(SPEC, 20, address, rate_limiter=RateLimiter(2), **settings) as server:
        assert server.address == address
        assert server.metrics.address.startswith("127.0.0.1:")
        with pytest.raises(Unauthenticated):
            connect([address])
        with connect([address], prefetch=0, token_file=str(token)) as replay:
            assert (replay.stats().size, replay.stats().capacity) == (4, 20)
            replay.save("now")
            assert [path.name for path in (tmp_path / "saves" / "now").iterdir()] == ["replay-0.h5"]
    assert server.metrics is None


def test_shards_start_from_their_shares_of_what_another_number_saved(tmp_path):
    files = [str(tmp_path / f"replay-{index}.h5") for index in range(2)]
    for index, file in enumerate(files):
        with start_server(SPEC, 20, shard_index=index) as server, connect([server.address], prefetch=0) as replay:
            replay.insert({"observation": np.ones((8, 8), np.float32), "action": np.arange(8) + 8 * index})
            server.shard.save(file)
    actions = []
    for index in range(3):
        settings = {"restore_from": files, "init_shards": 3, "shard_index": index}
        with start_server(SPEC, 20, **settings) as server:
            table = server.shard.table
            actions += SPEC.columns(table.records[table.slots.order()])["action"].tolist()
    assert sorted(actions) == list(range(16))
    journal = {"durability": "journal", "directory": str(tmp_path / "shard")}
    for again in (settings, {"init_shards": 3, "shard_index": 2}):  # it is in the journal from then on
        with start_server(SPEC, 20, **again, **journal) as server:
            assert server.shard.stats().inserted == server.shard.table.size == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"restore_from": []}, "restore_from is an empty list"),
        ({"restore_from": ["a.h5"], "shard_index": 2}, "shard_index .2. must be below init_shards .1."),
        ({"sampeler": "uniform"}, "unknown setting sampeler; did you mean sampler"),
        ({"sampler": "best"}, "sampler: Invalid enum value 'best'"),
        ({"seed": -1}, "seed: Expected `int` >= 0"),
        ({"metrics_port": 65536}, "metrics_port: Expected `int` <= 65535"),
        ({"tls": {"certificate": "c"}}, "tls: Object missing required field `key`"),
        ({"rate_limiter": RateLimiter(21)}, "min_size is 21, capacity is 20"),
        ({"rate_limiter": RateLimiter.queue(4)}, "queue_size needs max_times_sampled 1"),
        ({"table": "a name"}, "table: "),
        ({"durability": "journal"}, "durability journal needs directory"),
        ({"capacity": 10**12}, "capacity: this shard needs 1,000,000,000,000 x 48 B"),
    ],
)
def test_wrong_keywords_are_refused_as_config_errors(settings, words):
    with pytest.raises(ConfigError, match=words):
        start_server(SPEC, **{"capacity": 20, **settings})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("capacity: 1000", "capacity: 0", "capacity"),
        ("capacity: 1000", "capacity: 9", "min_size is 10, capacity is 9"),
        ("seed: 4", "sede: 4", "sede"),
        ("sampler: multinomial", "sampler: best", "sampler"),
        ("priority_exponent: 0.5", "priority_exponent: 2", "priority_exponent"),
        ("samples_per_insert: 8.0", "samples_per_insert: 0", "samples_per_insert"),
        ("fields: [{", "fields: [{size: 3, ", "size"),
    ],
)
def test_wrong_settings_are_refused(old, new, words):
    assert old in YAML
    with pytest.raises((msgspec.ValidationError, ConfigError), match=words):
        msgspec.yaml.decode(YAML.replace(old, new), type=ShardConfig)


def test_an_impossible_column_is_refused():
    config = msgspec.yaml.decode(YAML.replace("int64", "text"), type=ShardConfig)
    with pytest.raises(SchemaMismatch, match="action"):
        config.spec.to_spec()
