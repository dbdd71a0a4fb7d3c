"""The configuration of a stand-alone shard: every field arrives, wrong ones are refused."""

from types import SimpleNamespace

import msgspec
import pytest

from replay_server import Field, RateLimiter, RecordSpec, SchemaMismatch, ServerTLS, serving
from replay_server.shard_config import ShardConfig

YAML = """
spec: {fields: [{name: observation, dtype: float32, shape: [8]}, {name: action, dtype: int64, shape: []}],
       semantics: {gamma: "0.99"}}
capacity: 1000
priority_exponent: 0.5
sampler: multinomial
rate_limiter: {min_size: 10, samples_per_insert: 8.0, error_buffer: 40.0}
directory: somewhere
token_file: token
tls: {certificate: c.pem, key: k.pem, client_ca: a.pem}
seed: 4
shard_index: 3
"""


def test_every_field_reaches_the_server(monkeypatch, capsys):
    made = {}

    class Running:
        address = "127.0.0.1:1"

        def __init__(self, spec, capacity, **settings):
            made.update(settings, spec=spec, capacity=capacity)
            self.shard = SimpleNamespace(table=serving.Table(spec, capacity))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    class Ended:
        def wait(self, timeout):
            return True

    monkeypatch.setattr(serving, "start_server", Running)
    monkeypatch.setattr(serving, "threading", SimpleNamespace(Event=Ended))
    monkeypatch.setattr(serving, "signal", SimpleNamespace(SIGTERM=15, SIGINT=2, signal=lambda *_: None))
    serving.serve(msgspec.yaml.decode(YAML, type=ShardConfig))
    assert made == {
        "spec": RecordSpec((Field("observation", "float32", (8,)), Field("action", "int64")), {"gamma": "0.99"}),
        "capacity": 1000,
        "address": "127.0.0.1:0",
        "priority_exponent": 0.5,
        "sampler": "multinomial",
        "rate_limiter": RateLimiter(10, 8.0, 40.0),
        "seed": 4,
        "shard_index": 3,
        "directory": "somewhere",
        "restore_from": None,
        "token_file": "token",
        "tls": ServerTLS(certificate="c.pem", key="k.pem", client_ca="a.pem"),
        "insecure": False,
    }
    assert capsys.readouterr().out == (
        "serving replay at 127.0.0.1:1 shard 3: 1,000 x 48 B = 0.0 MiB + tree and generations 0.0 MiB = 0.1 MiB\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("capacity: 1000", "capacity: 0", "capacity"),
        ("capacity: 1000", "capacity: 9", "min_size .10. exceeds capacity .9."),
        ("seed: 4", "sede: 4", "sede"),
        ("sampler: multinomial", "sampler: best", "sampler"),
        ("priority_exponent: 0.5", "priority_exponent: 2", "priority_exponent"),
        ("samples_per_insert: 8.0", "samples_per_insert: 0", "samples_per_insert"),
        ("fields: [{", "fields: [{size: 3, ", "size"),
    ],
)
def test_wrong_settings_are_refused(old, new, words):
    assert old in YAML
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.yaml.decode(YAML.replace(old, new), type=ShardConfig)


def test_an_impossible_column_is_refused():
    config = msgspec.yaml.decode(YAML.replace("int64", "text"), type=ShardConfig)
    with pytest.raises(SchemaMismatch, match="action"):
        config.spec.to_spec()
