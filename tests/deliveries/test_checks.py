from math import nan
from pathlib import Path

import certifi
import pytest
import redis
from django.core.checks import Error, run_checks
from django.core.checks import Warning as CheckWarning

from config import embedded
from deliveries import checks


def findings() -> dict[str, str]:
    return {finding.id: finding.msg for finding in checks.check_times()}


def test_it_finds_nothing_wrong_with_the_defaults():
    assert findings() == {}


def test_it_is_part_of_the_system_checks(settings):
    settings.CALL_TIMEOUT_SECONDS = 0
    assert [finding.id for finding in run_checks()] == ["deliveries.E001"]


@pytest.mark.parametrize(("seconds", "is_wrong"), [(0, True), (1, False), (60, False), (61, True), (-1, True)])
def test_it_limits_a_call_to_a_minute(settings, seconds, is_wrong):
    settings.CALL_TIMEOUT_SECONDS = seconds
    assert findings() == ({"deliveries.E001": "CALL_TIMEOUT_SECONDS is not from 1 to 60."} if is_wrong else {})


@pytest.mark.parametrize(("seconds", "is_wrong"), [(-1, True), (0, True), (nan, True), (0.5, False), (30, False)])
def test_it_wants_a_lease_that_outlasts_its_call(settings, seconds, is_wrong):
    settings.LEASE_MARGIN_SECONDS = seconds
    assert findings() == ({"deliveries.E002": "LEASE_MARGIN_SECONDS is not positive."} if is_wrong else {})


@pytest.mark.parametrize(("seconds", "is_wrong"), [(239, False), (240, True)])
def test_it_wants_a_job_that_outlasts_its_leases(settings, seconds, is_wrong):
    # The longest call is 60 seconds, and a job may be silent for 300.
    settings.LEASE_MARGIN_SECONDS = seconds
    message = "A lease would outlast the time limit of its job."
    assert findings() == ({"deliveries.E003": message} if is_wrong else {})


@pytest.mark.parametrize(("seconds", "is_wrong"), [(0, True), (1, False)])
def test_it_wants_a_clock_that_ticks(settings, seconds, is_wrong):
    settings.TICK_SECONDS = seconds
    assert findings() == ({"deliveries.E004": "TICK_SECONDS is less than 1."} if is_wrong else {})


@pytest.mark.parametrize(
    ("schedule", "is_wrong"), [([], False), ([1], False), ([120, 0], True), ([-5], True), ([1, 2, 3], False)]
)
def test_it_wants_delays_of_a_second_at_least(settings, schedule, is_wrong):
    settings.RETRY_SCHEDULE = schedule
    message = "RETRY_SCHEDULE has a delay of less than a second."
    assert findings() == ({"deliveries.E005": message} if is_wrong else {})


@pytest.mark.parametrize(("days", "is_wrong"), [(0, False), (36500, False), (36501, True)])
def test_it_wants_an_age_to_purge_at_that_a_clock_can_tell(settings, days, is_wrong):
    settings.RETENTION_DAYS = days
    assert findings() == ({"deliveries.E006": "RETENTION_DAYS is more than 36500."} if is_wrong else {})


@pytest.mark.parametrize(("failures", "is_wrong"), [(None, False), (0, True), (1, False)])
def test_an_ordered_subscription_goes_on_after_at_least_one_failure_or_never(settings, failures, is_wrong):
    settings.ORDERED_SKIP_AFTER = failures
    assert findings() == ({"deliveries.E006": "ORDERED_SKIP_AFTER is less than 1."} if is_wrong else {})


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("token", "is_wrong"),
    [
        (None, False),
        ("kM3v-vWq8Zf0bA6yT1xR_9cE2nJ5sH7u", False),
        ("kM3v-vWq8Zf0bA6yT1xR_9cE2nJ5sH7", True),  # one short of 32
        ("secret", True),
        ("abcd" * 20, True),
        ("kM3v-vWq8Zf0bA6yT1xR 9cE2nJ5sH7uK", True),
        ("kM3v-vWq8Zf0bA6yT1xR_9cE2nJ5sH7\xfc", True),
    ],
)
def test_it_wants_a_strong_token_for_metrics_or_none(settings, token, is_wrong, debug):
    settings.METRICS_TOKEN, settings.DEBUG = token, debug
    message = "METRICS_TOKEN is short, can be guessed, or has other characters than visible ASCII."
    hint = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    error = Error(message, hint=hint, id="deliveries.E008")
    assert checks.check_metrics_token() == ([error] if is_wrong and not debug else [])


@pytest.fixture
def own_redis(settings, open_folder: Path):
    """A Redis of its own, whose settings the test may change."""
    server = embedded.start_redis(open_folder)
    settings.REDIS_URL = embedded.redis_url(open_folder)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client
    server.stop()


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl"])
def test_it_warns_of_a_redis_that_evicts(own_redis, policy):
    own_redis.config_set("maxmemory-policy", policy)
    message = f"Redis has the maxmemory-policy {policy}: it may drop the jobs of the clock."
    warning = CheckWarning(message, hint="Set maxmemory-policy noeviction.", id="deliveries.W001")
    assert checks.check_redis_evicts_nothing() == ([] if policy == "noeviction" else [warning])


def test_it_only_mentions_that_redis_is_away(no_redis):
    findings = run_checks(include_deployment_checks=True)
    assert ("deliveries.I001", 20) in [(finding.id, finding.level) for finding in findings]


def test_it_takes_a_bundle_of_authorities(settings):
    settings.CA_BUNDLE = certifi.where()
    assert checks.check_ca_bundle() == []


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_it_refuses_a_bundle_without_certificates(settings, tmp_path, text):
    settings.CA_BUNDLE = str(tmp_path / "bundle.pem")
    if text is not None:
        (tmp_path / "bundle.pem").write_text(text)
    [finding] = checks.check_ca_bundle()
    assert finding.id == "deliveries.E007"
    assert finding.msg.startswith("CA_BUNDLE cannot be read: ")
