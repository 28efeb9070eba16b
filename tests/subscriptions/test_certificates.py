"""Whether certificates in PEM can be used, said before a call depends on them."""

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
