"""The token and the certificates of one run, made when it starts and handed to its processes through Ray."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from replay_server.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_SKEW = timedelta(days=1)  # between the clocks of nodes
_VALID = timedelta(days=3650)


@dataclass(frozen=True)
class ClientSecrets:
    """What a client of the run's shards needs: the token, and the authority's certificate where they speak TLS."""

    token: str = field(repr=False)
    ca: bytes | None = None


@dataclass(frozen=True)
class ShardSecrets:
    """What a shard of the run needs: the token, and its certificate and key where it speaks TLS."""

    token: str = field(repr=False)
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


class RunSecrets:
    """Makes a token, and an authority that certifies shards by their IP addresses; its key stays in this object.

    Args:
        token: of the user, who wants to ask the shards too; None makes one that nobody else knows.
        tls: shards can be reached from other machines; else the token is all they ask for.

    Raises:
        ConfigError: TLS is wanted and the package that makes certificates is not installed.
    """

    def __init__(self, token: str | None = None, *, tls: bool) -> None:
        self._token = token or secrets.token_urlsafe(32)
        self._authority = _Authority() if tls else None

    def client(self) -> ClientSecrets:
        """For every process that inserts or samples."""
        return ClientSecrets(self._token, None if self._authority is None else self._authority.certificate)

    def shard(self, ip: str) -> ShardSecrets:
        """For a shard that serves at this address of its node."""
        if self._authority is None:
            return ShardSecrets(self._token)
        return ShardSecrets(self._token, *self._authority.certify(ip))


class _Authority:
    def __init__(self) -> None:
        if find_spec("cryptography") is None:
            raise ConfigError(
                "ray.address: a run on a cluster makes certificates for its shards, which needs the package "
                "cryptography: pip install 'headrace[train]'"
            )
        from cryptography import x509

        self._key = _new_key()
        self._name = _name("headrace run")
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.certificate = self._signed(builder)

    def certify(self, ip: str) -> tuple[bytes, bytes]:
        """Certificate and private key, PEM, of a server at an IP address."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization as form

        key = _new_key()
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ip))])
        builder = self._builder(_name("replay shard"), key).add_extension(names, critical=False)
        text = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        return self._signed(builder), text

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        from cryptography import x509

        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _VALID)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        from cryptography.hazmat.primitives import hashes, serialization

        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
