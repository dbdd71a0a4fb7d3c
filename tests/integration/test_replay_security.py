"""Who may talk to a shard: TLS, tokens and addresses, over real connections."""

from __future__ import annotations

import datetime
import ipaddress
import os
import pickle
import re
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from replay_server import (
    TLS,
    ConfigError,
    Field,
    RecordSpec,
    ServerTLS,
    Unauthenticated,
    Unavailable,
    connect,
    start_server,
)
from replay_server.security import Token, client_credentials, read_token
from replay_server.wire import METHODS

pytestmark = pytest.mark.integration
SPEC = RecordSpec((Field("x", "float32"),))
TOKEN = "correct-horse-battery-staple-0001"
ROWS = {"x": np.arange(4, dtype=np.float32)}
NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Authority:
    """A certificate authority in a directory."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self.name, self._key, None, NOW + datetime.timedelta(days=1))
        self.ca = str(self.directory / f"{self.name}-ca.pem")
        Path(self.ca).write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, lasts: datetime.timedelta = datetime.timedelta(days=1)) -> tuple[str, str]:
        """Paths of a certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, self._certificate.subject, NOW + lasts)
        paths = self.directory / f"{self.name}-{name}.pem", self.directory / f"{self.name}-{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths[1].chmod(0o600)
        return str(paths[0]), str(paths[1])

    def _sign(self, name, key, issuer, ends):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self.name} {name}")])
        alternatives = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        authority = issuer is None
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=2))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


@pytest.fixture
def token_file(tmp_path):
    return write_token(tmp_path / "token", TOKEN)


def write_token(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and TOKEN not in text
    return text


def use(address, **security):
    with connect([address], timeout_s=3.0, prefetch=0, **security) as replay:
        assert replay.insert(ROWS).accepted == 4
        assert len(replay.sample(8)) == 8
        assert replay.stats().size == 4


def test_a_token_admits_with_and_without_tls(ours, token_file, monkeypatch):
    with start_server(SPEC, 100, token_file=token_file) as plain:
        use(plain.address, token_file=token_file)
    certificate, key = ours.issue("server")
    with start_server(SPEC, 100, token_file=token_file, tls=ServerTLS(certificate=certificate, key=key)) as protected:
        use(protected.address, token_file=token_file, tls=TLS(ca=ours.ca))
        monkeypatch.setenv("HEADRACE_TOKEN", TOKEN)
        with connect([protected.address], prefetch=0, tls=TLS(ca=ours.ca)) as replay:
            assert replay.stats().size == 4


@pytest.mark.parametrize("shown", [None, "wrong-token-wrong-token-wrong", TOKEN + "x", TOKEN[:-1]])
def test_without_the_right_token_nothing_is_answered(tmp_path, token_file, shown):
    shown_file = None if shown is None else write_token(tmp_path / "shown", shown)
    with start_server(SPEC, 100, token_file=token_file) as server:
        with pytest.raises(Unauthenticated) as refused:
            connect([server.address], timeout_s=5.0, token_file=shown_file)
        text = one_line(refused)
        assert ("no token was given" if shown is None else "the token is not this shard's") in text
        assert "token_file" in text and "HEADRACE_TOKEN" in text
        for method in (*METHODS, "Nothing"):
            assert raw_code(server.address, f"/headrace.Replay/{method}") is grpc.StatusCode.UNAUTHENTICATED
        assert raw_code(server.address, "/grpc.health.v1.Health/Watch") is grpc.StatusCode.UNAUTHENTICATED
        assert server.shard.stats().inserted == 0
        with connect([server.address], prefetch=0, token_file=token_file) as replay:
            [told] = replay.stats().shards
        assert told.refusals == {"Unauthenticated": 1 + len(METHODS) + 2}  # connect greets once
        use(server.address, token_file=token_file)


def raw_code(address: str, method: str):
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(method)(b"", timeout=5.0, metadata=(("authorization", "Bearer x"),))
    return refused.value.code()


def test_one_health_check_needs_no_token(token_file):
    with start_server(SPEC, 100, token_file=token_file) as server, grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=5.0) == b"\x08\x01"  # status: SERVING


def test_one_side_with_tls_and_the_other_without(ours):
    certificate, key = ours.issue("server")
    with start_server(SPEC, 100, tls=ServerTLS(certificate=certificate, key=key)) as protected:
        with pytest.raises(Unauthenticated) as refused:
            connect([protected.address], timeout_s=8.0)
        assert "speaks TLS: connect with tls=" in one_line(refused)
    with start_server(SPEC, 100) as plain, pytest.raises(Unauthenticated) as refused:
        connect([plain.address], timeout_s=8.0, tls=TLS(ca=ours.ca))
    assert "does not speak TLS" in one_line(refused)


def test_a_certificate_of_another_authority_or_an_expired_one_is_not_trusted(ours, theirs):
    certificate, key = ours.issue("server")
    with start_server(SPEC, 100, tls=ServerTLS(certificate=certificate, key=key)) as server:
        for tls in (TLS(ca=theirs.ca), TLS()):
            with pytest.raises(Unauthenticated) as refused:
                connect([server.address], timeout_s=8.0, tls=tls)
            assert re.search("not trusted: .*certificate.*tls.ca must hold", one_line(refused))
    certificate, key = ours.issue("expired", datetime.timedelta(days=-1))
    with start_server(SPEC, 100, tls=ServerTLS(certificate=certificate, key=key)) as server:
        with pytest.raises(Unauthenticated) as refused:
            connect([server.address], timeout_s=8.0, tls=TLS(ca=ours.ca))
        assert "not trusted: certificate has expired" in one_line(refused)


def test_mutual_tls_wants_a_certificate_of_the_clients_authority(ours, theirs):
    certificate, key = ours.issue("server")
    tls = ServerTLS(certificate=certificate, key=key, client_ca=theirs.ca)
    with start_server(SPEC, 100, tls=tls) as server:
        client = theirs.issue("client")
        use(server.address, tls=TLS(ca=ours.ca, certificate=client[0], key=client[1]))
        stranger, expired = ours.issue("stranger"), theirs.issue("expired", datetime.timedelta(days=-1))
        for wrong in (TLS(ca=ours.ca), TLS(ours.ca, *stranger), TLS(ours.ca, *expired)):
            with pytest.raises(Unauthenticated) as refused:
                connect([server.address], timeout_s=8.0, tls=wrong)
            assert "does not accept this client's certificate" in one_line(refused)


def test_a_server_that_comes_back_with_a_strange_certificate_is_not_talked_to(ours, theirs):
    certificate, key = ours.issue("server")
    with start_server(SPEC, 100, tls=ServerTLS(certificate=certificate, key=key)) as server:
        replay = connect([server.address], prefetch=0, tls=TLS(ca=ours.ca))
        address = server.address
    certificate, key = theirs.issue("server")
    with start_server(SPEC, 100, address, tls=ServerTLS(certificate=certificate, key=key)) as other, replay:
        with pytest.raises(Unauthenticated) as refused:
            replay.insert(ROWS, timeout_s=5.0)
        assert "do not trust each other (certificate verify failed: unable to get local issuer" in one_line(refused)
        [shard] = replay.stats().shards
        assert (shard.state, shard.reason) == ("unreachable", one_line(refused))
        with pytest.raises(Unavailable, match="no shard of this replay answers: .* do not trust each other"):
            replay.sample(1, timeout_s=1.0)
        assert other.shard.stats().inserted == 0


def test_other_addresses_need_tls_and_token_or_consent(ours, token_file, monkeypatch):
    monkeypatch.delenv("HEADRACE_TOKEN", raising=False)
    certificate, key = ours.issue("server")
    tls = ServerTLS(certificate=certificate, key=key)
    for address in ("0.0.0.0:0", "[::]:0", "10.0.0.1:0", "replay.example:0"):
        for security, missing in (
            ({}, "tls and token_file are not set"),
            ({"tls": tls}, "token_file is not set"),
            ({"token_file": token_file}, "tls is not set"),
        ):
            with pytest.raises(ConfigError) as refused:
                start_server(SPEC, 100, address, **security)
            text = one_line(refused)
            assert repr(address) in text and missing in text and "--insecure" in text
    with pytest.raises(ConfigError, match="would travel there unencrypted"):
        start_server(SPEC, 100, "0.0.0.0:0", token_file=token_file, insecure=True)
    with pytest.raises(ConfigError, match="would travel to 192.0.2.1:1 unencrypted"):
        connect(["192.0.2.1:1"], token_file=token_file, timeout_s=1.0)
    with start_server(SPEC, 100, "0.0.0.0:0", token_file=token_file, tls=tls) as server:
        use(f"127.0.0.1:{server.address.rpartition(':')[2]}", token_file=token_file, tls=TLS(ca=ours.ca))
    with start_server(SPEC, 100, "0.0.0.0:0", insecure=True) as server:
        use(f"127.0.0.1:{server.address.rpartition(':')[2]}")


def test_files_that_cannot_be_right_are_refused_by_name(ours, theirs, tmp_path, token_file):
    certificate, key = ours.issue("server")
    _, other_key = theirs.issue("server")
    junk = write_token(tmp_path / "junk", "this is no PEM file at all")
    for tls, words in (
        (ServerTLS(certificate=str(tmp_path / "none"), key=key), "tls.certificate: cannot read .*none: No such file"),
        (ServerTLS(certificate=certificate, key=other_key), "the key is not that certificate's"),
        (ServerTLS(certificate=junk, key=key), "cannot use certificate .*junk"),
        (ServerTLS(certificate=certificate, key=key, client_ca=junk), "tls.client_ca: .*junk holds no PEM certificate"),
    ):
        with pytest.raises(ConfigError, match=words):
            start_server(SPEC, 100, tls=tls)
    with pytest.raises(ConfigError, match="tls.ca: .*junk holds no PEM certificate"):
        connect(["127.0.0.1:1"], tls=TLS(ca=junk))
    with pytest.raises(ConfigError, match="certificate and key go together"):
        TLS(certificate=certificate)
    Path(key).chmod(0o604)
    with pytest.raises(ConfigError, match=f"tls.key: everybody .* run: chmod 600 {key}"):
        start_server(SPEC, 100, tls=ServerTLS(certificate=certificate, key=key))
    Path(token_file).chmod(0o644)
    for attempt in (lambda: start_server(SPEC, 100, token_file=token_file), lambda: client_credentials(token_file)):
        with pytest.raises(ConfigError, match=f"token_file: everybody .* run: chmod 600 {token_file}"):
            attempt()
    with pytest.raises(ConfigError, match="token_file: cannot read .*nowhere"):
        read_token(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("text", ["", "too-few", "two words two words two words", "umlaut-ä-umlaut-ä-umlaut"])
def test_a_token_too_short_or_with_odd_characters_is_refused_without_being_shown(tmp_path, text):
    with pytest.raises(ConfigError) as refused:
        read_token(write_token(tmp_path / "token", text))
    assert "16 or more printable ASCII characters" in str(refused.value)
    assert not text or text not in str(refused.value)


def test_a_token_shows_itself_to_nobody(token_file):
    security = client_credentials(token_file)
    for text in (repr(security), str(security), repr(security.token), f"{security.token}", repr(vars(security))):
        assert TOKEN not in text
    with pytest.raises(TypeError):
        pickle.dumps(security)
    assert not Token(TOKEN, "here").admits((("authorization", f"bearer {TOKEN}"),))
    assert not Token(TOKEN, "here").admits((("other", f"Bearer {TOKEN}"),))
    assert Token(TOKEN, "here").admits((("user-agent", "x"), ("authorization", f"Bearer {TOKEN}")))


def test_the_program_keeps_the_token_to_itself(headrace, tmp_path, ours, token_file):
    certificate, key = ours.issue("server")
    config = f"""\
address: 127.0.0.1:0
spec: {{fields: [{{name: x, dtype: float32}}]}}
capacity: 100
token_file: {token_file}
tls: {{certificate: {certificate}, key: {key}}}
"""
    (tmp_path / "shard.yaml").write_text(config)
    command = headrace("serve-replay", "shard.yaml")
    line = command.process.stdout.readline()
    address = re.search(r"127\.0\.0\.1:\d+", line)
    assert address, line + command.process.stderr.read()
    use(address[0], token_file=token_file, tls=TLS(ca=ours.ca))
    with pytest.raises(Unauthenticated):
        connect([address[0]], tls=TLS(ca=ours.ca))
    assert TOKEN.encode() not in Path(f"/proc/{command.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in Path(f"/proc/{command.process.pid}/environ").read_bytes()
    os.kill(command.process.pid, signal.SIGTERM)
    code, output, errors = command.finish(20.0)
    assert (code, errors) == (0, "")
    assert TOKEN not in line + output


def test_the_program_refuses_other_addresses_unless_told(headrace, tmp_path):
    (tmp_path / "shard.yaml").write_text("spec: {fields: [{name: x, dtype: float32}]}\ncapacity: 100\n")
    code, output, errors = headrace("serve-replay", "shard.yaml", "--address", "0.0.0.0:0").finish(60.0)
    assert (code, output) == (2, "")
    assert errors.startswith("headrace: error: address '0.0.0.0:0' can be reached from other machines")
    assert len(errors.splitlines()) == 1
    command = headrace("serve-replay", "shard.yaml", "--address", "0.0.0.0:0", "--insecure")
    port = re.search(r"0\.0\.0\.0:(\d+)", command.process.stdout.readline())[1]
    use(f"127.0.0.1:{port}")


def test_silence_is_not_taken_for_mistrust():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,  # accepts, says nothing
        pytest.raises(Unavailable),
    ):
        connect([f"127.0.0.1:{listener.getsockname()[1]}"], timeout_s=2.5)
