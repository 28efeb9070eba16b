"""Who may call: API keys, their scopes, their tenant, their end."""

import uuid
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from django.db.models.functions import Now
from rest_framework.test import APIClient

from subscriptions.models import ApiKey, Subscription
from tests.expected import NO_API_KEY_DETAIL, REQUEST_ID, no_scope, problem

ALL_SCOPES = ("publish", "read", "manage")

MISSING_KEY = problem(401, "not_authenticated", NO_API_KEY_DETAIL)
BAD_KEY = problem(401, "authentication_failed", "This API key is unknown, expired or revoked.")
NOT_FOUND = problem(404, "not_found", "There is no such subscription.")

NEW = {"target_url": "https://example.com/hook"}


def client_with(authorization: str | None) -> APIClient:
    client = APIClient(raise_request_exception=False)
    credentials = {"HTTP_REQUEST_ID": REQUEST_ID}
    if authorization is not None:
        credentials["HTTP_AUTHORIZATION"] = authorization
    client.credentials(**credentials)
    return client


@pytest.fixture
def make_key(db):
    def make(*scopes: str, tenant: str | None = None, valid_for: timedelta | None = None) -> tuple[ApiKey, str]:
        return ApiKey.objects.create_key("of the tests", scopes or ALL_SCOPES, tenant=tenant, valid_for=valid_for)

    return make


@pytest.fixture
def read(make_subscription):
    """Read one subscription with an Authorization header; returns the answer."""
    subscription = make_subscription()

    def read(authorization: str | None):
        return client_with(authorization).get(f"/subscriptions/{subscription.id}")

    return read


def test_it_stores_a_key_only_as_its_digest(make_key):
    key, text = make_key("read", tenant="acme")
    row = ApiKey.objects.values().get()
    assert row | {"digest": bytes(row["digest"])} == {
        "id": key.id,
        "name": "of the tests",
        "prefix": text.split("_")[1],
        "digest": sha256(text.encode()).digest(),
        "scopes": ["read"],
        "tenant": "acme",
        "created_at": key.created_at,
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
    }
    secret = text.split("_", 2)[2]
    assert len(secret) == 43  # 32 random bytes in base64
    assert secret not in str(row)


def test_it_lets_a_key_in(read, make_key):
    _, text = make_key()
    assert read(f"Bearer {text}").status_code == 200
    assert read(f"bearer  {text} ").status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Basic dXNlcjpwYXNzd29yZA==", "Token x"])
def test_it_refuses_a_call_without_a_key(read, authorization):
    answer = read(authorization)
    assert answer.json() == MISSING_KEY
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="webhooks"'


@pytest.mark.parametrize("authorization", [None, "Basic dXNlcjpwYXNzd29yZA=="])
def test_it_lets_a_call_in_without_a_key_in_development_only(read, settings, authorization):
    settings.DEBUG = True
    assert read(authorization).status_code == 200
    settings.DEBUG = False
    assert read(authorization).status_code == 401


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "whk_",
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text.removeprefix("whk_"),
        lambda text: text.upper(),
        lambda text: text.replace(text.split("_")[1], "0" * 12),
        lambda text: text[:-1] + "é",
        lambda text: "whk_\0_secret",
        lambda text: "x" * 5000,
        lambda text: text + " " + text,
    ],
)
def test_it_refuses_a_wrong_key_even_in_development(read, make_key, settings, debug, spoil):
    _, text = make_key()
    settings.DEBUG = debug
    answer = read(f"Bearer {spoil(text)}")
    assert answer.json() == BAD_KEY
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="webhooks"'


def test_it_refuses_an_expired_key_by_the_clock_of_the_database(read, make_key):
    _, over = make_key(valid_for=timedelta(seconds=-1))
    assert read(f"Bearer {over}").json() == BAD_KEY
    _, valid = make_key(valid_for=timedelta(minutes=1))
    assert read(f"Bearer {valid}").status_code == 200


def test_it_refuses_a_revoked_key_at_once(read, make_key):
    key, text = make_key()
    assert read(f"Bearer {text}").status_code == 200
    ApiKey.objects.filter(id=key.id).update(revoked_at=Now())
    assert read(f"Bearer {text}").json() == BAD_KEY


@pytest.mark.parametrize(
    ("scopes", "may_read", "may_manage"),
    [
        (("read",), True, False),
        (("manage",), False, True),
        (("publish",), False, False),
        (("read", "manage"), True, True),
    ],
)
def test_it_lets_a_key_do_what_its_scopes_say(read, make_key, scopes, may_read, may_manage):
    _, text = make_key(*scopes)
    answers = [read(f"Bearer {text}"), client_with(f"Bearer {text}").post("/subscriptions", NEW, format="json")]
    assert [answer.status_code for answer in answers] == [200 if may_read else 403, 201 if may_manage else 403]
    refused = [
        (answer.json(), no_scope(scope))
        for answer, scope in zip(answers, ("read", "manage"), strict=True)
        if answer.status_code == 403
    ]
    assert all(found == expected for found, expected in refused)


@pytest.mark.parametrize("path", ["/subscriptions", "/events", "/requests"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
@pytest.mark.parametrize(("scope", "status"), [("read", 200), ("publish", 403), ("manage", 403)])
def test_it_takes_the_scope_of_get_for_what_tells_no_more(make_key, path, method, scope, status):
    _, text = make_key(scope)
    answer = client_with(f"Bearer {text}").generic(method, path)
    assert answer.status_code == status
    assert method != "HEAD" or answer.content == b""


def test_it_does_not_ask_health_and_documentation_for_a_key(db):
    client = client_with(None)
    paths = ["/health", "/openapi.json", "/docs", "/redoc"]
    assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)


@pytest.mark.parametrize(("mine", "foreign"), [("acme", "globex"), ("acme", ""), ("", "acme")])
def test_it_shows_a_tenant_nothing_of_another(make_subscription, make_key, mine, foreign):
    _, text = make_key(tenant=mine)
    client = client_with(f"Bearer {text}")
    own, other = make_subscription(tenant=mine), make_subscription(tenant=foreign)
    assert client.get(f"/subscriptions/{own.id}").json()["tenant"] == mine

    answers = [client.get(f"/subscriptions/{one}") for one in (other.id, uuid.uuid4())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert [answer.json() for answer in answers] == [NOT_FOUND, NOT_FOUND]
    # From the cache too, after somebody else has put it there.
    Subscription.objects.cached(other.id)
    assert client.get(f"/subscriptions/{other.id}").json() == NOT_FOUND


def test_it_shows_an_operator_every_tenant(make_subscription, make_key):
    _, text = make_key(tenant=None)
    subscriptions = [make_subscription(tenant=tenant) for tenant in ("acme", "globex", "")]
    answers = [client_with(f"Bearer {text}").get(f"/subscriptions/{one.id}") for one in subscriptions]
    assert [answer.json()["tenant"] for answer in answers] == ["acme", "globex", ""]


def test_it_makes_a_subscription_for_the_tenant_of_the_key(make_key):
    _, text = make_key(tenant="acme")
    client = client_with(f"Bearer {text}")
    made = [client.post("/subscriptions", NEW | more, format="json") for more in ({}, {"tenant": "acme"})]
    assert [answer.json()["tenant"] for answer in made] == ["acme", "acme"]


@pytest.mark.parametrize("tenant", ["globex", ""])
def test_it_makes_no_subscription_for_another_tenant(make_key, tenant):
    _, text = make_key(tenant="acme")
    answer = client_with(f"Bearer {text}").post("/subscriptions", NEW | {"tenant": tenant}, format="json")
    error = {"pointer": "/tenant", "code": "wrong_tenant", "detail": "This API key is bound to another tenant."}
    assert answer.json() == problem(400, "invalid", "The request is not valid; see errors.", error)
    assert answer.status_code == 400
    assert not Subscription.objects.exists()


def test_it_notes_when_a_key_was_used_to_the_minute(read, make_key):
    key, text = make_key()
    read(f"Bearer {text}")
    key.refresh_from_db()
    first = key.last_used_at
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)

    read(f"Bearer {text}")
    key.refresh_from_db()
    assert key.last_used_at == first

    long_ago = first - timedelta(seconds=61)
    ApiKey.objects.filter(id=key.id).update(last_used_at=long_ago)
    read(f"Bearer {text}")
    key.refresh_from_db()
    assert key.last_used_at >= first
