import base64
from hashlib import sha256

import pytest
from django.core.checks import Error, run_checks
from django.core.checks import Warning as CheckWarning

from subscriptions import checks

KEY_HINT = "Make one: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
GOOD_KEY = base64.b64encode(sha256(b"good").digest()).decode()


def test_it_finds_nothing_wrong_with_the_settings_of_the_tests():
    assert run_checks() == []


def test_it_is_part_of_the_system_checks(settings):
    settings.SECRET_KEYS = []
    settings.ALLOWED_NETWORKS = ["nonsense"]
    assert {finding.id for finding in run_checks()} == {"subscriptions.E001", "subscriptions.E003"}


def test_it_refuses_an_empty_key_ring(settings):
    settings.SECRET_KEYS = []
    message = "SECRET_KEYS is empty: signing secrets cannot be encrypted."
    assert checks.check_secret_keys() == [Error(message, hint=KEY_HINT, id="subscriptions.E001")]


def test_it_names_each_key_that_is_wrong_by_its_place_and_never_by_its_text(settings):
    settings.SECRET_KEYS = ["not base64!", GOOD_KEY, "c2hvcnQ="]
    assert checks.check_secret_keys() == [
        Error("Key 1 of SECRET_KEYS is not base64.", hint=KEY_HINT, id="subscriptions.E002"),
        Error("Key 3 of SECRET_KEYS is 5 bytes instead of 32.", hint=KEY_HINT, id="subscriptions.E002"),
    ]


def test_it_takes_several_good_keys(settings):
    settings.SECRET_KEYS = [GOOD_KEY, GOOD_KEY]
    assert checks.check_secret_keys() == []


@pytest.mark.parametrize("networks", [[], ["10.1.2.0/24"], ["127.0.0.0/8", "::1/128"], ["192.0.2.1"]])
def test_it_takes_networks(settings, networks):
    settings.ALLOWED_NETWORKS = networks
    assert checks.check_allowed_networks() == []


@pytest.mark.parametrize(
    ("networks", "reason"),
    [
        (["10.1.2.0/24", "intranet"], "'intranet' does not appear to be an IPv4 or IPv6 network"),
        (["10.1.2.3/24"], "10.1.2.3/24 has host bits set"),
        (["10.0.0.0/33"], "'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
        ([""], "'' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_it_refuses_what_is_no_network(settings, networks, reason):
    settings.ALLOWED_NETWORKS = networks
    hint = "Write networks such as 10.1.2.0/24, separated by commas."
    assert checks.check_allowed_networks() == [
        Error(f"ALLOWED_NETWORKS: {reason}.", hint=hint, id="subscriptions.E003")
    ]


@pytest.mark.parametrize(
    "networks",
    [
        ["0.0.0.0/0"],
        ["::/0"],
        ["0.0.0.0/1"],
        ["10.0.0.0/7"],
        ["172.0.0.0/11"],
        ["192.168.0.0/15"],
        ["8.8.8.8"],
        ["2000::/3"],
        ["2001::/16"],
        ["2606:4700::/32"],
    ],
)
def test_it_refuses_networks_with_public_addresses_in_them(settings, networks):
    settings.ALLOWED_NETWORKS = ["10.0.0.0/8", *networks]
    [finding] = checks.check_allowed_networks()
    assert finding.id == "subscriptions.E006"
    assert networks[0] in finding.msg


@pytest.mark.parametrize(
    "networks",
    [["0.0.0.0/1", "128.0.0.0/1"], ["2000::/4", "3000::/4"], [f"{first}.0.0.0/8" for first in range(1, 224)]],
)
def test_it_refuses_the_internet_in_parts(settings, networks):
    settings.ALLOWED_NETWORKS = networks
    refused = [finding.msg for finding in checks.check_allowed_networks() if finding.id == "subscriptions.E006"]
    private = {"10.0.0.0/8", "127.0.0.0/8"}
    assert len(refused) == len(set(networks) - private)


@pytest.mark.parametrize(
    "network", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/8", "127.0.0.0/8", "2001:db8::/32"]
)
def test_it_takes_whole_private_networks(settings, network):
    settings.ALLOWED_NETWORKS = [network]
    assert checks.check_allowed_networks() == []


@pytest.mark.parametrize("network", ["169.254.0.0/16", "169.254.169.254", "100.64.0.0/10", "fd00::/8", "fc00::/7"])
def test_it_warns_of_networks_with_the_clouds_metadata_in_them(settings, network):
    settings.ALLOWED_NETWORKS = [network]
    [finding] = checks.check_allowed_networks()
    assert (finding.id, finding.level) == ("subscriptions.W001", 30)


STRONG = "aB3-" * 12 + "xyz"


@pytest.mark.parametrize(
    ("key", "is_weak"),
    [
        ("x" * 64, True),
        (STRONG[:49], True),
        (STRONG, False),
        ("django-insecure-" + STRONG, True),
    ],
)
def test_it_refuses_a_weak_secret_key_outside_development_mode(settings, key, is_weak):
    settings.SECRET_KEY = key
    hint = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
    refusal = Error("SECRET_KEY is short or can be guessed.", hint=hint, id="subscriptions.E004")
    assert checks.check_secret_key() == ([refusal] if is_weak else [])
    settings.DEBUG = True
    assert checks.check_secret_key() == []


@pytest.mark.parametrize("key", [bytes(32), b"for tests only, and 32 bytes lo.", bytes(range(4)) * 8])
def test_it_refuses_to_encrypt_under_a_key_that_is_not_random(settings, key):
    weak = base64.b64encode(key).decode()
    settings.SECRET_KEYS = [weak]
    message = "Key 1 of SECRET_KEYS is not random: it can be guessed."
    assert checks.check_secret_keys() == [Error(message, hint=KEY_HINT, id="subscriptions.E005")]
    settings.SECRET_KEYS = [GOOD_KEY, weak]
    assert checks.check_secret_keys() == []
    settings.SECRET_KEYS, settings.DEBUG = [weak], True
    assert checks.check_secret_keys() == []


@pytest.mark.parametrize(
    ("debug", "host", "is_open"),
    [
        (True, "0.0.0.0", True),
        (True, "192.168.1.5", True),
        (True, "127.0.0.1", False),
        (True, "localhost", False),
        (True, "::1", False),
        (True, "", False),
        (False, "0.0.0.0", False),
    ],
)
def test_it_warns_of_development_mode_on_an_address_that_others_reach(settings, debug, host, is_open):
    settings.DEBUG, settings.HOST = debug, host
    message = f"DEBUG is on and web listens on {host}: whoever reaches it needs no API key."
    hint = "Turn DEBUG off, or set HOST=127.0.0.1."
    warning = CheckWarning(message, hint=hint, id="subscriptions.W002")
    assert checks.check_development_mode() == ([warning] if is_open else [])


@pytest.mark.parametrize(("hosts", "is_open"), [([], False), (["hooks.example.com"], False), (["a.b", "*"], True)])
def test_it_warns_of_every_host_being_allowed(settings, hosts, is_open):
    settings.ALLOWED_HOSTS = hosts
    findings = [finding.id for finding in run_checks(include_deployment_checks=True)]
    assert ("subscriptions.W003" in findings) is is_open


@pytest.mark.parametrize(
    ("header", "proxies", "is_open"),
    [
        (("HTTP_X_FORWARDED_PROTO", "https"), 0, True),
        (("HTTP_X_FORWARDED_PROTO", "https"), 1, False),
        (None, 0, False),
    ],
)
def test_it_warns_of_a_proxy_whose_address_all_callers_have(settings, header, proxies, is_open):
    settings.SECURE_PROXY_SSL_HEADER, settings.PROXY_COUNT = header, proxies
    findings = [finding.id for finding in run_checks(include_deployment_checks=True)]
    assert ("subscriptions.W004" in findings) is is_open
    assert run_checks() == []


def test_it_refuses_a_negative_number_of_proxies(settings):
    settings.PROXY_COUNT = -1
    assert [finding.id for finding in run_checks()] == ["subscriptions.E008"]


@pytest.mark.parametrize(("name", "most"), [("LOGIN_FAILURE_LIMIT", 1_000), ("LOGIN_LOCKOUT_MINUTES", 525_600)])
def test_it_refuses_a_lockout_that_is_none_or_for_ever(settings, name, most):
    for value in (-(10**13), 0, most + 1, 10**13):
        setattr(settings, name, value)
        message = f"{name} is not from 1 to {most:,}."
        assert [(finding.id, finding.msg) for finding in run_checks()] == [("subscriptions.E009", message)]
    for value in (1, most):
        setattr(settings, name, value)
        assert run_checks() == []


@pytest.mark.parametrize(
    ("limit", "is_wrong"),
    [("", False), ("500/second", False), ("10 per 5 minutes", False), ("fast", True), ("5", True)],
)
def test_it_wants_the_rate_limit_of_api_keys_to_be_a_rate(settings, limit, is_wrong):
    settings.API_RATE_LIMIT = limit
    hint = "Write a limit such as 500/second or 1000/minute; empty means none."
    error = Error("API_RATE_LIMIT is not a rate.", hint=hint, id="subscriptions.E007")
    assert checks.check_api_rate_limit() == ([error] if is_wrong else [])
