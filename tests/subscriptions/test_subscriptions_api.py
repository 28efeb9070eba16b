"""POST /subscriptions and GET /subscriptions/{id}: whole bodies, defaults, refusals."""

import base64
import uuid

import pytest

from subscriptions.models import Subscription
from tests.expected import REQUEST_ID, invalid, problem, subscription_body

URL = "https://example.com/hook"


@pytest.fixture
def create(client_with_key):
    """Post to /subscriptions; returns the answer."""

    def create(data):
        return client_with_key.post("/subscriptions", data, format="json", headers={"Request-Id": REQUEST_ID})

    return create


@pytest.fixture
def refused(create):
    """Post to /subscriptions what is not valid; returns the body of the answer."""

    def refused(data):
        answer = create(data)
        assert answer.status_code == 400
        assert answer["Content-Type"] == "application/problem+json"
        assert not Subscription.objects.exists()
        return answer.json()

    return refused


def test_it_creates_a_subscription_with_the_documented_defaults(create):
    answer = create({"target_url": URL})
    subscription = Subscription.objects.get()
    body = answer.json()
    secret = body["secret"]
    assert body == subscription_body(subscription) | {"secret_hint": f"…{secret[-4:]}", "secret": secret}
    assert answer.status_code == 201
    assert answer["Content-Type"] == "application/json"
    assert answer["Request-Id"] == REQUEST_ID
    assert subscription.id.version == 7
    assert secret.startswith("whsec_")
    assert subscription.signing_keys == [base64.b64decode(secret.removeprefix("whsec_"))]
    assert len(subscription.signing_keys[0]) == 32


def test_it_creates_a_subscription_with_everything_given(create):
    given = {
        "tenant": "acme",
        "description": "Zoë’s invoices 🎉",
        "metadata": {"team": "billing", "tags": ["a", 1, None, {"deep": 2.5}]},
        "target_url": "http://example.com:8080/hook?token=x",
        "event_types": ["invoice.paid", "order.*", "*"],
        "filter": {"body": {"total": {"$gt": 100}}},
        "headers": {"X-Route": "a b"},
        "retry_schedule": [1, 604800],
        "timeout_seconds": 60,
        "max_in_flight": 1,
        "rate_limit": 2.5,
        "ordered": True,
    }
    answer = create(given | {"secret": "as short as this"})
    subscription = Subscription.objects.get()
    assert answer.json() == subscription_body(subscription) | given | {"secret": "as short as this"}
    assert subscription.secret_hint == "…this"
    assert subscription.signing_keys == [b"as short as this"]


def test_it_takes_texts_with_the_spaces_around_them(create):
    given = {"tenant": " acme ", "description": "\tLedger "}
    body = create(given | {"target_url": URL}).json()
    assert {name: body[name] for name in given} == given


def test_it_takes_its_defaults_from_the_settings(create, settings):
    settings.RETRY_SCHEDULE = [1, 2]
    settings.CALL_TIMEOUT_SECONDS = 7
    settings.MAX_IN_FLIGHT = 5
    body = create({"target_url": URL}).json()
    defaults = {name: body[name] for name in ("retry_schedule", "timeout_seconds", "max_in_flight")}
    assert defaults == {"retry_schedule": [1, 2], "timeout_seconds": 7, "max_in_flight": 5}


def test_it_shows_the_secret_once_and_never_again(create, client_with_key):
    created = create({"target_url": URL}).json()
    secret = created.pop("secret")
    answer = client_with_key.get(f"/subscriptions/{created['id']}")
    assert answer.json() == created
    assert answer.status_code == 200
    assert secret not in answer.content.decode()
    assert secret.encode() not in bytes(Subscription.objects.get().secret)


def test_it_reads_a_subscription_as_it_is(client_with_key, make_subscription):
    subscription = make_subscription(URL, status="disabled", status_reason="The receiver answered 410.")
    answer = client_with_key.get(f"/subscriptions/{subscription.id}", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == subscription_body(
        subscription, status="disabled", status_reason="The receiver answered 410."
    )
    assert answer["Request-Id"] == REQUEST_ID


def test_it_answers_404_for_an_unknown_id(client_with_key):
    answer = client_with_key.get(f"/subscriptions/{uuid.uuid4()}", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == problem(404, "not_found", "There is no such subscription.")
    assert answer.status_code == 404


@pytest.mark.parametrize("secret", ["x", "x" * 255, " ", " spaces stay ", "ключ 🔑", "whsec_YWJj", "line\nline"])
def test_it_takes_any_secret_of_1_to_255_characters(create, secret):
    answer = create({"target_url": URL, "secret": secret})
    assert answer.status_code == 201
    assert answer.json()["secret"] == secret


@pytest.mark.parametrize(
    ("secret", "code", "detail"),
    [
        ("", "blank", "This field may not be blank."),
        ("x" * 256, "max_length", "Ensure this field has no more than 255 characters."),
        (None, "null", "This field may not be null."),
        (["x"], "invalid", "Not a valid string."),
        ({}, "invalid", "Not a valid string."),
        (True, "invalid", "Not a valid string."),
        ("a\0b", "null_characters_not_allowed", "Null characters are not allowed."),
        ("whsec_", "invalid_secret", "The part after whsec_ is empty."),
        ("whsec_not base64!", "invalid_secret", "The part after whsec_ is not base64."),
        ("whsec_é", "invalid_secret", "The part after whsec_ is not base64."),
    ],
)
def test_it_refuses_any_other_secret(refused, secret, code, detail):
    body = refused({"target_url": URL, "secret": secret})
    # A secret that is too long is also judged by the rule that covers people's forms.
    errors = [error for error in body.pop("errors") if error["code"] == code]
    assert errors == [{"pointer": "/secret", "code": code, "detail": detail}]
    assert body == problem(400, "invalid", "The request is not valid; see errors.")


def test_it_refuses_unknown_fields_and_names_each(refused):
    detail = "This field is not known."
    assert refused({"target_url": URL, "colour": "red", "event_type": "invoice.paid"}) == invalid(
        ("/colour", "unknown", detail), ("/event_type", "unknown", detail)
    )


@pytest.mark.parametrize("name", ["id", "status", "status_reason", "secret_hint", "created_at", "updated_at"])
def test_it_refuses_fields_that_only_the_service_sets(refused, name):
    assert refused({"target_url": URL, name: "x"}) == invalid(
        (f"/{name}", "read_only", "Only the service sets this field.")
    )


@pytest.mark.parametrize("name", ["", "Target_url", "target-url"])
def test_it_refuses_fields_that_are_named_a_little_otherwise(refused, name):
    assert refused({"target_url": URL, name: "x"}) == invalid((f"/{name}", "unknown", "This field is not known."))


def test_it_writes_pointers_as_rfc_6901_says(refused):
    detail = "This field is not known."
    assert refused({"target_url": URL, "a/b": 1, "c~d": 2}) == invalid(
        ("/a~1b", "unknown", detail), ("/c~0d", "unknown", detail)
    )


def test_it_is_not_confused_by_fields_that_are_named_like_its_own_words(refused):
    detail = "This field is not known."
    assert refused({"target_url": URL, "message": 1, "code": 2}) == invalid(
        ("/code", "unknown", detail), ("/message", "unknown", detail)
    )


@pytest.mark.parametrize("data", [[], [{"target_url": URL}], "text", 5, None])
def test_it_refuses_what_is_no_object(refused, data):
    if data is None:
        assert refused(data) == invalid(("/target_url", "required", "This field is required."))
        return
    detail = "Give a JSON object."
    assert refused(data) == invalid(("", "invalid", detail))


def test_it_reports_every_wrong_field_at_once(refused):
    data = {
        "target_url": "http://127.1/",
        "tenant": "x" * 256,
        "description": "a\0b",
        "event_types": ["invoice.paid", "*.paid", "no spaces"],
        "retry_schedule": [120, 0, 604801, "soon"],
        "timeout_seconds": 61,
        "max_in_flight": 0,
    }
    odd = "The host looks like an address in an odd notation: write it as four decimal numbers."
    assert refused(data) == invalid(
        ("/tenant", "max_length", "Ensure this field has no more than 255 characters."),
        ("/description", "null_characters_not_allowed", "Null characters are not allowed."),
        ("/target_url", "refused_url", odd),
        (
            "/event_types/1",
            "invalid_event_type",
            "“*.paid” is not an event type (invoice.paid), a wildcard (invoice.*) or *.",
        ),
        (
            "/event_types/2",
            "invalid_event_type",
            "“no spaces” is not an event type (invoice.paid), a wildcard (invoice.*) or *.",
        ),
        ("/retry_schedule/1", "min_value", "Ensure this value is greater than or equal to 1."),
        ("/retry_schedule/2", "max_value", "Ensure this value is less than or equal to 604800."),
        ("/retry_schedule/3", "invalid", "A valid integer is required."),
        ("/timeout_seconds", "max_value", "Ensure this value is less than or equal to 60."),
        ("/max_in_flight", "min_value", "Ensure this value is greater than or equal to 1."),
    )


@pytest.mark.parametrize(
    ("fields", "pointer", "code", "detail"),
    [
        ({}, "/target_url", "required", "This field is required."),
        ({"target_url": None}, "/target_url", "null", "This field may not be null."),
        ({"target_url": ""}, "/target_url", "blank", "This field may not be blank."),
        ({"target_url": ["x"]}, "/target_url", "invalid", "Not a valid string."),
        (
            {"target_url": URL, "event_types": "invoice.paid"},
            "/event_types",
            "not_a_list",
            'Expected a list of items but got type "str".',
        ),
        (
            {"target_url": URL, "event_types": ["*"] * 251},
            "/event_types",
            "max_length",
            "List contains 251 items, it should contain no more than 250.",
        ),
        (
            {"target_url": URL, "retry_schedule": [1] * 21},
            "/retry_schedule",
            "max_length",
            "List contains 21 items, it should contain no more than 20.",
        ),
        ({"target_url": URL, "retry_schedule": None}, "/retry_schedule", "null", "This field may not be null."),
        (
            {"target_url": URL, "timeout_seconds": True},
            "/timeout_seconds",
            "invalid",
            "A valid integer is required.",
        ),
        (
            {"target_url": URL, "timeout_seconds": 1.5},
            "/timeout_seconds",
            "invalid",
            "A valid integer is required.",
        ),
        (
            {"target_url": URL, "timeout_seconds": 10**30},
            "/timeout_seconds",
            "max_value",
            "Ensure this value is less than or equal to 60.",
        ),
        (
            {"target_url": URL, "max_in_flight": 1001},
            "/max_in_flight",
            "max_value",
            "Ensure this value is less than or equal to 1000.",
        ),
    ],
)
def test_it_says_where_and_why_a_field_is_refused(refused, fields, pointer, code, detail):
    assert refused(fields) == invalid((pointer, code, detail))


@pytest.mark.parametrize("schedule", [[], [1], list(range(1, 21))])
def test_it_takes_a_retry_schedule_of_up_to_twenty_delays(create, schedule):
    answer = create({"target_url": URL, "retry_schedule": schedule})
    assert answer.status_code == 201
    assert answer.json()["retry_schedule"] == schedule


def test_it_takes_a_receiver_on_a_network_that_the_operator_allows(create, settings):
    data = {"target_url": "http://10.1.2.3:8000/hook"}
    settings.ALLOWED_NETWORKS = []
    assert create(data).status_code == 400
    settings.ALLOWED_NETWORKS = ["10.1.2.0/24"]
    assert create(data).status_code == 201


def test_it_reads_a_subscription_without_a_query_of_it_if_it_was_read_just_now(
    client_with_key, make_subscription, django_assert_num_queries
):
    subscription = make_subscription()
    path = f"/subscriptions/{subscription.id}"
    with django_assert_num_queries(3):  # the key, the note of its use, the subscription
        first = client_with_key.get(path)
    with django_assert_num_queries(2):
        assert client_with_key.get(path).json() == first.json()


def test_it_asks_for_a_cached_subscription_of_another_tenant_as_for_one_that_never_was(
    make_client, make_subscription, django_assert_num_queries
):
    foreign = make_subscription(tenant="globex")
    make_client("read", tenant="globex").get(f"/subscriptions/{foreign.id}")
    client = make_client("read", tenant="acme")
    for subscription_id in (uuid.uuid4(), foreign.id):
        with django_assert_num_queries(3):
            assert client.get(f"/subscriptions/{subscription_id}").status_code == 404


def test_it_says_where_the_new_subscription_is(create, client_with_key):
    answer = create({"target_url": URL})
    assert answer["Location"] == f"/subscriptions/{answer.json()['id']}"
    read = client_with_key.get(answer["Location"])
    assert read["ETag"] == answer["ETag"]
    assert (answer["Cache-Control"], read["Cache-Control"]) == ("no-store", "no-store")
