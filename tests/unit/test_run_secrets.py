"""Tokens and certificates of a run: who gets in, and where they lie."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from distributed.private_file import PrivateFile
from distributed.replay_access import ReplayAccess
from distributed.run_secrets import ClientSecrets, RunSecrets, ShardSecrets
from replay_server import ServerTLS, connect, start_server
from replay_server.errors import Unauthenticated
from replay_server.server import ReplayServer
from replay_server.specs import Field, RecordSpec

SPEC = RecordSpec((Field("action", "int64"),))


@contextmanager
def served(secrets: ShardSecrets, ip: str, **settings: object) -> Iterator[ReplayServer]:
    contents = {"token": secrets.token.encode(), "certificate": secrets.certificate, "key": secrets.key}
    files = {name: PrivateFile(name, content) for name, content in contents.items() if content is not None}
    tls = ServerTLS(certificate=str(files["certificate"].path), key=str(files["key"].path)) if "key" in files else None
    try:
        with start_server(SPEC, 100, f"{ip}:0", token_file=str(files["token"].path), tls=tls, **settings) as server:
            yield server
    finally:
        for file in files.values():
            file.close()


def test_a_private_file_is_this_users_alone_and_on_no_disk() -> None:
    file = PrivateFile("secret", b"words")
    assert file.path.read_bytes() == b"words" and file.path.read_bytes() == b"words"
    assert os.stat(file.path).st_mode & 0o777 == 0o600 and os.stat(file.path).st_nlink == 0
    file.close()
    assert not file.path.exists()


@pytest.mark.parametrize("tls", [False, True])
def test_the_runs_own_clients_get_in_and_others_do_not(tls: bool) -> None:
    run, other = RunSecrets(tls=tls), RunSecrets(tls=tls)
    ip = "127.0.0.1"
    with served(run.shard(ip), ip) as server:
        access = pickle.loads(pickle.dumps(ReplayAccess({0: server.address}, run.client())))  # noqa: S301
        with access.connect(SPEC) as replay:
            assert replay.insert({"action": np.arange(3)}).accepted == 3
        access.close()
        with pytest.raises(Unauthenticated):
            ReplayAccess({0: server.address}, other.client()).connect(SPEC)
        with pytest.raises(Unauthenticated):
            connect([server.address], timeout_s=3.0)


def test_a_certificate_is_for_its_shards_address_alone() -> None:
    run = RunSecrets(tls=True)
    with served(run.shard("10.1.2.3"), "127.0.0.1") as server, pytest.raises(Unauthenticated):
        ReplayAccess({0: server.address}, run.client()).connect(SPEC)


def test_secrets_show_themselves_to_nobody(tmp_path: Path) -> None:
    run = RunSecrets(tls=True)
    client, shard = run.client(), run.shard("127.0.0.1")
    assert client.token == shard.token and len(client.token) >= 32
    for shown in (repr(client), repr(shard), str(client)):
        assert client.token not in shown and "PRIVATE" not in shown
    assert RunSecrets(tls=False).client().ca is None
    assert RunSecrets("a token of the user", tls=False).client().token == "a token of the user"
    assert isinstance(client, ClientSecrets) and not hasattr(client, "key")


def test_a_shard_that_came_back_elsewhere_is_found_by_client_and_writer() -> None:
    run, ip = RunSecrets(tls=False), "127.0.0.1"
    with served(run.shard(ip), ip, shard_index=4) as first:
        access = ReplayAccess({4: first.address}, run.client())
        replay = access.connect(SPEC, transport="grpc")
        writer = replay.writer(writer_id=7, epoch=1)
        writer.append({"action": np.arange(3)})
        assert writer.flush().accepted == 3
    with served(run.shard(ip), ip, shard_index=4) as second:
        assert second.address != first.address
        access.moved({4: second.address, 9: "10.0.0.1:1"})
        writer = replay.writer(writer_id=7, epoch=2)
        writer.append({"action": np.arange(5)})
        assert writer.flush(timeout_s=20.0).accepted == 5
        assert sorted(replay.sample(64, timeout_s=20.0).columns["action"])[-1] == 4
        replay.close()
    assert access.addresses == (second.address,)
