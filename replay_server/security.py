"""Who may talk to a shard: TLS, one shared token, and which addresses may be served without them.

A shard on the loopback address may serve anybody on the machine. On any other address it wants TLS and a token, or to
be told `--insecure`. The token comes from a file or from the environment variable HEADRACE_TOKEN, travels in every call
as `authorization: Bearer ...`, and is compared in constant time. It is in no config, no message, no log and no repr.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from replay_server.errors import ConfigError

TOKEN_VARIABLE = "HEADRACE_TOKEN"
"""Environment variable with the token, for servers and clients without a token file."""

_SHORTEST_TOKEN = 16
_MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TLS:
    """A client's side of TLS: paths of PEM files.

    Args:
        ca: certificate of the authority that must have signed the shard's; None for the system's authorities.
        certificate: the client's own, for shards that ask for one.
        key: its private key.

    Raises:
        ConfigError: one of `certificate` and `key` without the other.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("tls: certificate and key go together; give both or neither")


class ServerTLS(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shard's side of TLS."""

    certificate: Annotated[
        str, Meta(description="PEM file: the shard's certificate, then any between it and the CA's.")
    ]
    key: Annotated[str, Meta(description="PEM file: the private key of `certificate`; not readable by others.")]
    client_ca: Annotated[
        str | None, Meta(description="PEM file: clients must show a certificate signed by this; null: they need none.")
    ] = None


class Token:
    """A shared secret; shows itself to nobody by accident."""

    __slots__ = ("_header",)

    def __init__(self, text: str, source: str) -> None:
        if len(text) < _SHORTEST_TOKEN or not (text.isascii() and text.isprintable()) or " " in text:
            raise ConfigError(
                f"{source}: a token is {_SHORTEST_TOKEN} or more printable ASCII characters without spaces; {_MAKE_ONE}"
            )
        self._header = f"Bearer {text}"

    @property
    def metadata(self) -> Metadata:
        """What a client sends with every call."""
        return (("authorization", self._header),)

    def admits(self, metadata: Any) -> bool:
        """Whether a call's metadata carry this token; takes the same time whatever they carry."""
        for key, value in metadata or ():
            if key == "authorization":
                given = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
                return hmac.compare_digest(given, self._header.encode())
        return False

    def __repr__(self) -> str:
        return "Token(hidden)"

    def __reduce__(self) -> Any:
        raise TypeError("a token is not copied into other processes; each reads its own from file or environment")


def read_token(token_file: str | None) -> Token | None:
    """The token in a file, else in HEADRACE_TOKEN, else None.

    Raises:
        ConfigError: the file is missing, or others may read it, or the token is too short.
    """
    if token_file is not None:
        return Token(_private_text(token_file, "token_file").decode("utf-8", "replace").strip(), token_file)
    if text := os.environ.get(TOKEN_VARIABLE, "").strip():
        return Token(text, TOKEN_VARIABLE)
    return None


@dataclass(frozen=True)
class ClientSecurity:
    """What a client shows to shards and asks of them; made by `client_credentials`."""

    token: Token | None = None
    tls: TLS | None = None

    @property
    def metadata(self) -> Metadata:
        """Goes with every call, with or without TLS."""
        return self.token.metadata if self.token is not None else ()

    def channel(self, address: str, options: Any) -> Any:
        """A gRPC channel to HOST:PORT.

        Raises:
            ConfigError: a TLS file cannot be read, or the token would leave this machine unencrypted.
        """
        import grpc

        if self.tls is None:
            if self.token is not None and not is_loopback(address):
                raise ConfigError(
                    f"the token would travel to {address} unencrypted: connect with tls=TLS(ca=...), "
                    "or through an SSH tunnel to 127.0.0.1"
                )
            return grpc.insecure_channel(address, options=options)
        self.context()  # its messages name the file that is wrong; gRPC's don't
        tls = self.tls
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(tls.ca, "tls.ca") if tls.ca is not None else None,
            private_key=_read(tls.key, "tls.key") if tls.key is not None else None,
            certificate_chain=_read(tls.certificate, "tls.certificate") if tls.certificate is not None else None,
        )
        return grpc.secure_channel(address, credentials, options=options)

    def context(self) -> ssl.SSLContext:
        """The same settings for Python's own TLS; raises ConfigError naming the file that is wrong."""
        context = ssl.create_default_context()
        if self.tls is not None and self.tls.ca is not None:
            _load(lambda path: context.load_verify_locations(path), self.tls.ca, "tls.ca")
        if self.tls is not None and self.tls.certificate is not None and self.tls.key is not None:
            _load_chain(context, self.tls.certificate, self.tls.key)
        context.set_alpn_protocols(["h2"])
        return context


def client_credentials(token_file: str | None = None, tls: TLS | None = None) -> ClientSecurity:
    """What `connect(token_file=, tls=)` means.

    Raises:
        ConfigError: a file is missing, damaged or readable by others.
    """
    security = ClientSecurity(read_token(token_file), tls)
    if tls is not None:
        security.context()
    return security


@dataclass(frozen=True)
class ServerSecurity:
    """What a shard asks of its callers; made by `server_credentials`."""

    token: Token | None = None
    tls: ServerTLS | None = None

    def listen(self, server: Any, address: str) -> int:
        """Bind a gRPC server; returns the port. Raises RuntimeError, as gRPC does, when it is taken."""
        import grpc

        if self.tls is None:
            return int(server.add_insecure_port(address))
        credentials = grpc.ssl_server_credentials(
            [(_read(self.tls.key, "tls.key"), _read(self.tls.certificate, "tls.certificate"))],
            root_certificates=_read(self.tls.client_ca, "tls.client_ca") if self.tls.client_ca is not None else None,
            require_client_auth=self.tls.client_ca is not None,
        )
        return int(server.add_secure_port(address, credentials))


def server_credentials(
    address: str, token_file: str | None = None, tls: ServerTLS | None = None, insecure: bool = False
) -> ServerSecurity:
    """What a shard at `address` asks of its callers.

    Args:
        address: HOST:PORT to serve at.
        token_file: the token; None takes HEADRACE_TOKEN, and no token where that is not set.
        tls: certificate and key; None for plaintext.
        insecure: serve other machines although TLS or the token is missing.

    Raises:
        ConfigError: not HOST:PORT; not on loopback without TLS, token or `insecure`; a file is missing, damaged or
            readable by others.
    """
    security = ServerSecurity(read_token(token_file), tls)
    if not is_loopback(address):
        missing = [name for name, value in (("tls", tls), ("token_file", security.token)) if value is None]
        if missing and not insecure:
            raise ConfigError(
                f"address {address!r} can be reached from other machines and {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set: set {'it' if len(missing) == 1 else 'them'}, serve "
                "at 127.0.0.1, or pass --insecure (insecure=True) to let anybody read and write"
            )
        if security.token is not None and tls is None:
            raise ConfigError(
                f"address {address!r}: the token would travel there unencrypted: set tls, or serve without a token"
            )
    if tls is not None:
        _private_text(tls.key, "tls.key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_chain(context, tls.certificate, tls.key)
        if tls.client_ca is not None:
            _load(lambda path: context.load_verify_locations(path), tls.client_ca, "tls.client_ca")
    return security


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port. Raises ConfigError for what is not HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ConfigError(f"address {address!r} is not HOST:PORT, for example 127.0.0.1:7400")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can be reached from this machine only."""
    host, _ = split_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from None


def _private_text(path: str, name: str) -> bytes:
    """What is in a file that others must not read."""
    text = _read(path, name)
    if os.stat(path).st_mode & 0o007:
        raise ConfigError(f"{name}: everybody on this machine may read or write {path}; run: chmod 600 {path}")
    return text


def _load(load: Any, path: str, name: str) -> None:
    _read(path, name)
    try:
        load(path)
    except ssl.SSLError:
        raise ConfigError(f"{name}: {path} holds no PEM certificate") from None


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _read(certificate, "tls.certificate")
    _read(key, "tls.key")
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        reason = "the key is not that certificate's" if "MISMATCH" in str(error) else "not PEM, or the key is encrypted"
        raise ConfigError(f"tls: cannot use certificate {certificate} with key {key}: {reason}") from None
