"""Certificates for the tests: an authority of their own, and what it signs."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | dsa.DSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

_DAY = datetime.timedelta(days=1)
_AGO = datetime.timedelta(days=-3)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority; `bundle` is the file by which others trust it."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    bundle: Path


def make_authority(folder: Path, name: str = "an authority of the tests") -> Authority:
    subject, key = _name(name), ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(subject, subject, key, begins_in=_AGO, lifetime=_DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle = folder / "authority.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(name=subject, key=key, bundle=bundle)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: str
    private_key: str


def make_pair(
    authority: Authority | None,
    *,
    host: str = "localhost",
    begins_in: datetime.timedelta = _AGO,
    lifetime: datetime.timedelta = _DAY,
    key: PrivateKey | None = None,
) -> Pair:
    """Make a certificate for `host`; without an authority it is self-signed. A negative lifetime is over."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer = _name(host) if authority is None else authority.name
    certificate = (
        _builder(_name(host), issuer, key, begins_in=begins_in, lifetime=lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key if authority is None else authority.key, hashes.SHA256())
    )
    return Pair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        private_key=_key_text(key).decode(),
    )


def server_context(
    folder: Path,
    authority: Authority | None,
    *,
    host: str = "localhost",
    begins_in: datetime.timedelta = _AGO,
    lifetime: datetime.timedelta = _DAY,
    key: PrivateKey | None = None,
) -> ssl.SSLContext:
    """Return what a server for `host` needs, with the certificate of `make_pair`."""
    pair = make_pair(authority, host=host, begins_in=begins_in, lifetime=lifetime, key=key)
    path = folder / "server.pem"
    path.write_text(pair.private_key + pair.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    *,
    begins_in: datetime.timedelta,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + lifetime)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_text(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
