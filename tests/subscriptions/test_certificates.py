"""Whether certificates in PEM can be used, said before a call depends on them."""

import base64
import ssl
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from subscriptions.certificates import RefusedCertificate, check_certificates, check_pair
from tests import certificates


@pytest.fixture
def authority(tmp_path):
    return certificates.make_authority(tmp_path)


def test_it_takes_one_certificate_or_more(authority):
    pem = authority.bundle.read_text()
    check_certificates(pem)
    check_certificates(f"# a comment\n{pem}\n{pem}")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"]
)
def test_it_refuses_what_is_no_certificate(text):
    with pytest.raises(RefusedCertificate, match=r"^This is not one certificate or more in PEM\.$"):
        check_certificates(text)


def test_it_refuses_a_private_key_among_certificates(authority):
    pair = certificates.make_pair(authority)
    with pytest.raises(RefusedCertificate, match=r"^This holds a private key: give the certificates alone\.$"):
        check_certificates(pair.certificate + pair.private_key)


def test_it_refuses_certificates_for_which_a_password_would_be_asked_at_the_terminal(authority):
    pair = certificates.make_pair(authority)
    begin = "-----BEGIN CERTIFICATE-----\n"
    header = f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,{'0' * 32}\n\n"
    encrypted = pair.certificate.replace(begin, begin + header)
    words = r"^The certificates are encrypted, or say that they are: give them in plain PEM\.$"
    for text in (
        encrypted,
        pair.certificate + encrypted,
        pair.certificate + encrypted.replace("CERTIF", "X509 CERTIF"),
    ):
        with pytest.raises(RefusedCertificate, match=words):
            check_certificates(text)
        with pytest.raises(RefusedCertificate, match=words):
            check_pair(text, pair.private_key)


def test_it_refuses_more_than_anybody_needs(authority):
    with pytest.raises(RefusedCertificate, match=r"^The certificates have at most 16384 characters\.$"):
        check_certificates(authority.bundle.read_text() * 200)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "nonsense",
        "é",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----",
    ],
)
def test_it_refuses_what_is_no_private_key(authority, key):
    pair = certificates.make_pair(authority)
    with pytest.raises(RefusedCertificate, match=r"^The private key is not a PEM key without a password\.$"):
        check_pair(pair.certificate, key)


def test_it_refuses_a_huge_private_key_before_it_is_loaded(authority):
    pair = certificates.make_pair(authority)
    with pytest.raises(RefusedCertificate, match=r"^The private key has at most 8192 characters\.$"):
        check_pair(pair.certificate, pair.private_key + "\n" * 8_192)


@pytest.mark.parametrize("curve", ["06082a8648ce3d030131", "06082a8648ce3d030102"])
def test_it_refuses_a_certificate_whose_key_is_of_an_unknown_kind(authority, curve):
    pair = certificates.make_pair(authority)
    known = bytes.fromhex("06082a8648ce3d030107")  # the name of the curve P-256
    changed = ssl.PEM_cert_to_DER_cert(pair.certificate).replace(known, bytes.fromhex(curve))
    with pytest.raises(RefusedCertificate, match=r"^The certificate has a public key that is not understood\.$"):
        check_pair(ssl.DER_cert_to_PEM_cert(changed), pair.private_key)


def test_it_refuses_a_key_of_another_certificate(authority):
    with pytest.raises(RefusedCertificate, match=r"^The private key is not that of the certificate\.$"):
        check_pair(certificates.make_pair(authority).certificate, certificates.make_pair(authority).private_key)


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([length]) if length < 128 else bytes([0x80 | len(size)]) + size) + content


def rsa_pem(*numbers: int) -> str:
    """Write an RSA key (RFC 8017, A.1.2) whatever its numbers are: n, e, d, p, q, dp, dq, qi."""
    written = [der(2, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in (0, *numbers)]
    text = base64.b64encode(der(0x30, b"".join(written))).decode()
    return f"-----BEGIN RSA PRIVATE KEY-----\n{text}\n-----END RSA PRIVATE KEY-----\n"


def prime(exponent: int) -> int:
    """Return a prime of so many bits, one of Mersenne's."""
    return 2**exponent - 1


SLOW = r"^The private key is an RSA key that takes long to sign with: make a usual one\.$"
SIZES = r"^The private key, if it is an RSA key, has at most 4096 bits\.$"
NUMBERS = r"^The private key is an RSA key whose numbers do not belong together\.$"


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((15, 3, 3, prime(9689), prime(9941), 1, 1, 1), NUMBERS),
        ((prime(9689) * prime(9941), 3, 3, prime(9689), prime(9941), 1, 1, 1), SIZES),
        ((prime(521) * prime(607), 2**256 + 1, 3, prime(521), prime(607), 1, 1, 1), SLOW),
        ((prime(521) * prime(2203), 3, 3, prime(521), prime(2203), 1, 1, 1), SLOW),
        ((prime(521), 3, 3, 1, prime(521), 0, 5, 0), NUMBERS),
        ((prime(521), 3, 3, prime(521), 1, 5, 0, 0), NUMBERS),
        ((prime(521) * prime(607), 3, 2**20_000, prime(521), prime(607), 1, 1, 1), NUMBERS),
        ((prime(521) * prime(607), 3, 3, prime(521), prime(607), 2**20_000, 1, 1), NUMBERS),
        ((prime(521) * prime(607), 3, 3, prime(521), prime(607), 1, 2**20_000, 1), NUMBERS),
        ((prime(521) * prime(607), 3, 3, prime(521), prime(607), 1, 1, 2**20_000), NUMBERS),
    ],
)
def test_no_key_keeps_the_process_busy(authority, numbers, reason):
    # To test the primes of the first took minutes, in which no other thread ran.
    began_at = time.thread_time()
    with pytest.raises(RefusedCertificate, match=reason):
        check_pair(certificates.make_pair(authority).certificate, rsa_pem(*numbers))
    assert time.thread_time() - began_at < 1


def test_it_reads_an_rsa_key_as_people_have_them(authority):
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(RefusedCertificate, match=r"^The private key is not that of the certificate\.$"):
        check_pair(certificates.make_pair(authority).certificate, pem)


OTHER_KIND = r"^The private key is of a kind that is not taken\. Use an RSA, EC or Ed25519 key\.$"


def pkcs8_pem(kind: str, parameters: bytes, key: bytes) -> str:
    """Write a key (RFC 5208) of the algorithm with that name, in hexadecimal, whatever is in it."""
    algorithm = der(0x30, der(6, bytes.fromhex(kind)) + parameters)
    text = base64.b64encode(der(0x30, bytes.fromhex("020100") + algorithm + der(4, key))).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"


def integer(number: int) -> bytes:
    return der(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


DSA = "2a8648ce380401"
DH = "2a864886f70d010301"
DHX = "2a8648ce3e0201"


@pytest.mark.parametrize("kind", [DSA, DH, DHX])
def test_it_computes_nothing_with_a_key_of_another_kind(authority, kind):
    # To load the first, whose public half is g^x mod p, took 0.7 s in which no other thread ran.
    p, g, x = prime(19937), 3, prime(11213)
    numbers = (p, prime(521), g) if kind == DSA else (p, g)
    pem = pkcs8_pem(kind, der(0x30, b"".join(integer(number) for number in numbers)), integer(x))
    labelled = pem.replace("PRIVATE KEY", "RSA PRIVATE KEY")
    certificate = certificates.make_pair(authority).certificate
    began_at = time.thread_time()
    with pytest.raises(RefusedCertificate, match=OTHER_KIND):
        check_pair(certificate, pem)
    with pytest.raises(RefusedCertificate, match=r"^The private key is not a PEM key without a password\.$"):
        check_pair(certificate, labelled)
    assert time.thread_time() - began_at < 0.2


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_it_refuses_a_dsa_key_and_its_certificate(authority, form):
    key = dsa.generate_private_key(1024)
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
    pair = certificates.make_pair(authority, key=key)
    with pytest.raises(RefusedCertificate, match=OTHER_KIND):
        check_pair(pair.certificate, pem)
    with pytest.raises(
        RefusedCertificate, match=r"^The certificate has a key of a kind that is not taken\. Use an "
    ):
        check_pair(pair.certificate, certificates.make_pair(authority).private_key)


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (rsa.generate_private_key(65537, 1024), PrivateFormat.PKCS8),
        (rsa.generate_private_key(65537, 1024), PrivateFormat.TraditionalOpenSSL),
        (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.PKCS8),
        (ec.generate_private_key(ec.SECP384R1()), PrivateFormat.TraditionalOpenSSL),
        (ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8),
        (ed448.Ed448PrivateKey.generate(), PrivateFormat.PKCS8),
    ],
)
def test_it_takes_a_key_of_each_kind_that_is_usual(authority, key, form):
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
    certificate = certificates.make_pair(authority, key=key).certificate
    check_pair(certificate, pem)
    check_pair(certificate, "Bag Attributes: none\r\n\r\n" + pem.replace("\n", "\r\n").rstrip())


def test_it_refuses_a_second_private_key_and_one_in_two_parts(authority):
    # OpenSSL, at the call, may choose another one than was checked here, or another part.
    pair, other = certificates.make_pair(authority), certificates.make_pair(authority)
    with pytest.raises(RefusedCertificate, match=r"^There is more than one private key: give that of the "):
        check_pair(pair.certificate, pair.private_key + other.private_key)
    lines = pair.private_key.splitlines()
    with pytest.raises(RefusedCertificate, match=r"^The private key is not a PEM key without a password\.$"):
        check_pair(pair.certificate, "\n".join([lines[0], lines[1], "", *lines[2:]]))
