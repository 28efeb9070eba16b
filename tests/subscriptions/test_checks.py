import pytest
from django.core.checks import Error, run_checks

from subscriptions import checks

KEY_HINT = "Make one: python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
GOOD_KEY = "Zm9yIHRlc3RzIG9ubHksIGFuZCAzMiBieXRlcyBsby4="


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
