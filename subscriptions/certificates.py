"""Certificates in PEM: whether they can be used, said before a call depends on them."""

import binascii
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.asn1 import encode_der
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

# Some thirty certificates. They are read anew for each connection, which with so many takes half a megabyte.
MAX_LENGTH = 16_384

MAX_KEY_LENGTH = 8_192

# Each handshake signs once, in the one thread of a worker: 1.5 ms with so many bits, 30 ms with twice as many.
MAX_RSA_BITS = 4_096
# The longest public exponent of FIPS 186-5: OpenSSL computes with it twice at each signature.
MAX_EXPONENT_BITS = 256

# The kinds of keys that are taken. With a DSA or DH key OpenSSL computes as soon as it is loaded, and signs for
# seconds if somebody has chosen its numbers so; neither has a place in the TLS of today.
_KINDS = (
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5,
    PublicKeyAlgorithmOID.RSASSA_PSS,
    PublicKeyAlgorithmOID.EC_PUBLIC_KEY,
    PublicKeyAlgorithmOID.ED25519,
    PublicKeyAlgorithmOID.ED448,
)
_NAMES_OF_KINDS = tuple(encode_der(kind) for kind in _KINDS)

# OpenSSL reads this in one way only: a blank line would have it take what is above for a header.
_KEY = re.compile(
    r"^-----BEGIN ((?:RSA |EC |DSA )?PRIVATE KEY)-----[ \t]*\r?\n"
    r"((?:[A-Za-z0-9+/=]+[ \t]*\r?\n)+)-----END \1-----",
    re.MULTILINE,
)
# The beginning of a PrivateKeyInfo (RFC 5208), up to the name of its algorithm.
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_BEFORE_KIND = re.compile(rb"\x30" + _LENGTH + rb"\x02\x01.\x30" + _LENGTH, re.DOTALL)
_NO_KEY = "The private key is not a PEM key without a password."
_OTHER_KIND = "The private key is of a kind that is not taken. Use an RSA, EC or Ed25519 key."


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
    _check_kind(pem)
    try:
        # Whether the factors of an RSA key are primes is the matter of the one whose key it is: to test them
        # takes seconds, and minutes if somebody wants it to, in which no other thread runs.
        key = load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RefusedCertificate(_NO_KEY) from None
    if isinstance(key, RSAPrivateKey):
        _check_rsa(key.private_numbers())
    return key.public_key()


def _check_kind(pem: str) -> None:
    """Raise RefusedCertificate unless the key is the only one in its text, and of a kind that we take."""
    if pem.count("PRIVATE KEY-----") > 2:  # where it begins and where it ends
        raise RefusedCertificate("There is more than one private key: give that of the certificate alone.")
    found = _KEY.search(pem)
    if found is None:
        raise RefusedCertificate(_NO_KEY)
    if found[1] == "DSA PRIVATE KEY" or (found[1] == "PRIVATE KEY" and not _is_of_our_kinds(found[2])):
        raise RefusedCertificate(_OTHER_KIND)


def _is_of_our_kinds(text: str) -> bool:
    """Return whether a PrivateKeyInfo in Base64 names one of our algorithms, without loading the key."""
    try:
        content = binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except binascii.Error:
        raise RefusedCertificate(_NO_KEY) from None
    begin = _BEFORE_KIND.match(content)
    if begin is None:
        raise RefusedCertificate(_NO_KEY)
    return content.startswith(_NAMES_OF_KINDS, begin.end())


def _check_rsa(numbers: RSAPrivateNumbers) -> None:
    """Raise RefusedCertificate for a key that takes long to sign with: it is large, or one of its numbers is."""
    modulus, p, q = numbers.public_numbers.n, numbers.p, numbers.q
    if modulus.bit_length() > MAX_RSA_BITS:
        raise RefusedCertificate(f"The private key, if it is an RSA key, has at most {MAX_RSA_BITS} bits.")
    is_small = numbers.d < modulus and numbers.dmp1 < p and numbers.dmq1 < q and numbers.iqmp < p
    if p * q != modulus or 1 in (p, q) or not is_small:
        raise RefusedCertificate("The private key is an RSA key whose numbers do not belong together.")
    # One factor that is nearly as long as the product costs four times as much as two that share it.
    if numbers.public_numbers.e.bit_length() > MAX_EXPONENT_BITS or max(p, q).bit_length() > MAX_RSA_BITS // 2:
        raise RefusedCertificate("The private key is an RSA key that takes long to sign with: make a usual one.")


def _public_key(certificate: x509.Certificate) -> PublicKeyTypes:
    if certificate.public_key_algorithm_oid not in _KINDS:
        raise RefusedCertificate(
            "The certificate has a key of a kind that is not taken. Use an RSA, EC or Ed25519 key."
        )
    try:
        return certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RefusedCertificate("The certificate has a public key that is not understood.") from None


def _load_certificates(pem: str) -> list[x509.Certificate]:
    if len(pem) > MAX_LENGTH:
        raise RefusedCertificate(f"The certificates have at most {MAX_LENGTH} characters.")
    if "PRIVATE KEY" in pem:
        raise RefusedCertificate("This holds a private key: give the certificates alone.")
    # OpenSSL takes one with this header (RFC 1421) for encrypted, and would ask at the terminal for its password.
    if "Proc-Type" in pem:
        raise RefusedCertificate("The certificates are encrypted, or say that they are: give them in plain PEM.")
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise RefusedCertificate("This is not one certificate or more in PEM.") from None
