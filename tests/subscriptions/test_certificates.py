"""Whether certificates in PEM can be used, said before a call depends on them."""

import ssl

import pytest

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


def test_it_refuses_more_than_anybody_needs(authority):
    with pytest.raises(RefusedCertificate, match=r"^The certificates have at most 65536 characters\.$"):
        check_certificates(authority.bundle.read_text() * 200)


@pytest.mark.parametrize(
    "key", ["", "nonsense", "é", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
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
