"""Certificates in PEM: whether they can be used, said before a call depends on them."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

MAX_LENGTH = 65_536

# To load an RSA key is to test its primes: seconds for 8,192 bits, which fit in, and minutes for a huge one.
MAX_KEY_LENGTH = 8_192


class RefusedCertificate(ValueError):
    """A certificate or key that cannot be used; the text says why, for the one who gave it."""


def check_certificates(pem: str) -> None:
    """Raise RefusedCertificate unless `pem` holds one certificate or more, and nothing private."""
    _load_certificates(pem)


def check_pair(certificate: str, private_key: str) -> None:
    """Raise RefusedCertificate unless the key is that of the first certificate, in PEM without a password."""
    first = _load_certificates(certificate)[0]
    if _bytes_of(_load_key(private_key)) != _bytes_of(_public_key(first)):
        raise RefusedCertificate("The private key is not that of the certificate.")


def _bytes_of(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load_key(pem: str) -> PublicKeyTypes:
    if len(pem) > MAX_KEY_LENGTH:
        raise RefusedCertificate(f"The private key has at most {MAX_KEY_LENGTH} characters.")
    try:
        return load_pem_private_key(pem.encode(), password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RefusedCertificate("The private key is not a PEM key without a password.") from None


def _public_key(certificate: x509.Certificate) -> PublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RefusedCertificate("The certificate has a public key that is not understood.") from None


def _load_certificates(pem: str) -> list[x509.Certificate]:
    if len(pem) > MAX_LENGTH:
        raise RefusedCertificate(f"The certificates have at most {MAX_LENGTH} characters.")
    if "PRIVATE KEY" in pem:
        raise RefusedCertificate("This holds a private key: give the certificates alone.")
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise RefusedCertificate("This is not one certificate or more in PEM.") from None
