"""docs/api.md does what it says: its lines are really typed, beside a service that runs."""

import json
import re
from collections.abc import Iterator

import pytest

from subscriptions import rate_limits
from subscriptions.models import ApiKey
from tests.documents import blocks, follow, free_ports, newcomers_service, with_ports
from tests.service import BASE_DIR

# Starting a service and typing the whole page takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)

PAGE = (BASE_DIR / "docs/api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, str]]:
    """Walk through the page; give what each block printed, by the heading that it stands under."""
    ports = free_ports("8000", "9000", "9001")
    with newcomers_service(ports) as (launch, _):
        titles = [title for title, _ in blocks_by_title()]
        lines = [with_ports(block, ports) for _, block in blocks_by_title()]
        printed = follow(lines, launch, f"http://127.0.0.1:{ports['8000']}")["answers"]
        found: dict[str, str] = {}
        for title, text in zip(titles[2:], printed, strict=True):  # the first two start receivers
            found[title] = f"{found[title]}\n{text}" if title in found else text
        yield found


def blocks_by_title() -> list[tuple[str, str]]:
    """Return every block of shell with the heading that it stands under."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    return [
        (title, block)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
        for block in blocks(text, "bash")
    ]


def last_json(text: str) -> object:
    """Return what `json.tool` printed last in a text."""
    return json.loads(text[re.search(r"^\{$(?!.*^\{$)", text, re.MULTILINE | re.DOTALL).start() :])


def test_the_contents_lead_to_every_task():
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    linked = re.findall(r"^\| \[(.+?)\]\(#(.+?)\)", PAGE, re.MULTILINE)
    assert [title for title, _ in linked] == titles[1:]
    assert all(anchor == title.lower().replace(" ", "-") for title, anchor in linked)


@pytest.mark.processes
def test_a_key_is_made_and_listed(answers):
    assert re.search(
        r"^whk_\S+  shop  publish,read,manage  all tenants  valid  never$", answers["Make an API key"], re.M
    )
    assert last_json(answers["Make an API key"]) == {"next": None, "previous": None, "results": []}


@pytest.mark.processes
def test_subscriptions_are_listed(answers):
    listed = last_json(answers["Subscribe"])["results"]
    assert [(each["description"], each["event_types"]) for each in listed] == [
        ("", []),
        ("Accounting", ["invoice.*"]),
    ]


@pytest.mark.processes
def test_an_event_goes_to_all_who_take_it(answers):
    batch = last_json(answers["Publish to everyone who listens"])
    assert [len(event["requests"]) for event in batch["events"]] == [1, 2]


@pytest.mark.processes
def test_a_repeated_call_is_said_to_be_one(answers):
    event_id, replayed = answers["Repeat a call safely"].splitlines()
    assert len(event_id) == 36
    assert replayed.strip().lower() == "idempotency-replayed: true"


@pytest.mark.processes
def test_a_preview_says_why_not(answers):
    forecast = last_json(answers["Deliver by content"])["subscriptions"]
    assert [each["result"] for each in forecast] == ["ignore", "deliver", "deliver"]
    assert (forecast[0]["reason"], forecast[0]["clause"]) == ("filter", "/body/total/$gte")


@pytest.mark.processes
def test_a_payload_that_does_not_fit_is_refused(answers):
    problem = last_json(answers["Describe event types"])
    assert (problem["status"], [error["pointer"] for error in problem["errors"]]) == (422, ["/body/order"])


@pytest.mark.processes
def test_a_failed_request_is_replayed(answers):
    printed = answers["Replay what failed"]
    assert '"error": "http_5xx"' in printed
    assert printed.splitlines()[-2:] == ["pending", "replay"]


@pytest.mark.processes
def test_the_others_are_recovered(answers):
    printed = answers["Recover from an outage"]
    operation = last_json(printed)
    assert printed.splitlines()[0] == "2"
    assert (operation["status"], operation["total"], operation["done"]) == ("done", 2, 2)


@pytest.mark.processes
def test_a_request_is_shown_with_its_attempts_and_its_payload(answers):
    printed = answers["See what came of it"]
    assert '"request_count": 2' in printed
    assert '"status": "delivered"' in printed
    assert printed.splitlines()[-1] == '{"invoice": 4711, "total": 250.0, "currency": "EUR"}'


@pytest.mark.processes
def test_the_next_page_is_turned_to(answers):
    assert answers["Turn pages"] == "invoice.created"


@pytest.mark.processes
def test_a_test_call_tells_its_outcome(answers):
    outcome = last_json(answers["Try a receiver out"])
    assert (outcome["success"], outcome["status_code"], outcome["event_type"]) == (True, 200, "invoice.test")


@pytest.mark.processes
def test_a_paused_subscription_holds(answers):
    assert answers["Pause and resume"].splitlines() == ["paused", "paused", "active"]


@pytest.mark.processes
def test_a_change_does_not_overwrite_another(answers):
    assert answers["Change a subscription"].splitlines() == ["Everything", "precondition_failed"]


@pytest.mark.processes
def test_a_rotation_tells_the_new_secret(answers):
    rotated = last_json(answers["Rotate a secret"])
    assert rotated["secret"].startswith("whsec_")
    assert rotated["previous_secret_until"] is not None


@pytest.mark.processes
def test_a_deleted_subscription_is_gone(answers):
    assert answers["Delete a subscription"].splitlines() == ["204", "not_found"]


@pytest.mark.processes
def test_an_error_points_to_every_mistake(answers):
    problem = last_json(answers["Read an error"])
    assert problem["request_id"] == "my-call-1"
    assert [error["pointer"] for error in problem["errors"]] == ["/target_url", "/timeout_seconds"]


@pytest.mark.processes
def test_a_call_within_the_limits_is_answered(answers):
    assert answers["Keep within the limits"] == "200"


def test_a_call_too_many_is_answered_as_shown(make_client, settings, patient_redis):
    [shown] = blocks(PAGE, "http")
    head, _, body = shown.partition("\n\n")
    status, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)

    settings.API_RATE_LIMIT = "1000/minute"
    client = make_client()
    key = ApiKey.objects.get()
    limiter, limit = rate_limits._limiter(settings.REDIS_URL), rate_limits.parse(settings.API_RATE_LIMIT)
    assert limiter.hit(limit, str(key.id), cost=1000)
    answer = client.get("/subscriptions", headers={"Request-Id": headers["Request-Id"]})

    assert status == f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"
    assert answer.json() == json.loads(body)
    wait = answer["Retry-After"]
    assert {name: answer[name] for name in headers} == headers | {
        "Retry-After": wait,
        "RateLimit": headers["RateLimit"].replace(f"t={headers['Retry-After']}", f"t={wait}"),
    }
