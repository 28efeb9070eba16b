"""The pages of API keys: make one, see them all, revoke."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from subscriptions.api_keys import ApiKey
from subscriptions.audit import AuditEntry
from tests.staff import messages_of, staff_client

pytestmark = pytest.mark.django_db

KEYS = "/admin/subscriptions/apikey/"


def page_of(key: ApiKey) -> str:
    return reverse("admin:subscriptions_apikey_change", args=(key.id,))


def act(client: Client, url: str, action: str, *keys: ApiKey, **fields: str):
    data = {"action": action, "_selected_action": [str(key.id) for key in keys]} | fields
    return client.post(url, data, follow=True)


@pytest.fixture
def key(db: None) -> ApiKey:
    return ApiKey.objects.create_key("of acme", ["publish", "read"], tenant="acme", valid_for=timedelta(days=1))[0]


def test_it_shows_api_keys_without_what_would_let_one_in(operator, key):
    key.refresh_from_db()
    for url in (KEYS, page_of(key)):
        content = operator.get(url).content.decode()
        for shown in ("of acme", key.prefix, "publish, read", f"{key.expires_at:%Y-%m-%d %H:%M:%S}"):
            assert shown in content
        assert key.digest.hex() not in content


def test_it_makes_a_key_that_is_shown_once_and_works(operator):
    given = {"name": "billing", "scopes": ["read", "manage"], "tenant": "acme", "expires_in_days": "30"}
    response = operator.post(f"{KEYS}add/", given, follow=True)
    key = ApiKey.objects.get()
    [told, _] = messages_of(response)
    text = re.fullmatch(r"The API key is <code>(.+)</code>. Copy it now: it is never shown again.", told)[1]
    assert (key.name, key.scopes, key.tenant) == ("billing", ["read", "manage"], "acme")
    assert key.expires_at - key.created_at == timedelta(days=30)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert client.get("/subscriptions").status_code == 200
    for url in (KEYS, page_of(key), f"{KEYS}{key.id}/history/"):
        assert text not in operator.get(url).content.decode()


def test_it_makes_a_key_for_every_tenant_that_never_expires_if_nothing_is_said(operator):
    operator.post(f"{KEYS}add/", {"name": "operator", "scopes": ["read"]})
    key = ApiKey.objects.get()
    assert (key.tenant, key.expires_at) == (None, None)


@pytest.mark.parametrize("tenant", [" ", " acme "])
def test_it_makes_a_key_for_the_tenant_as_it_is_typed(operator, tenant):
    operator.post(f"{KEYS}add/", {"name": "billing", "scopes": ["read"], "tenant": tenant})
    assert ApiKey.objects.get().tenant == tenant


def test_it_leaves_in_the_audit_log_who_made_a_key_and_nothing_that_would_let_one_in(operator):
    response = operator.post(f"{KEYS}add/", {"name": "billing", "scopes": ["read"]}, follow=True)
    entry = AuditEntry.objects.get(action="add")
    assert (entry.actor, entry.object_kind, entry.object_id) == (
        "operator",
        "API key",
        str(ApiKey.objects.get().id),
    )
    secret = re.search(r"whk_[0-9a-f]+_([^<]+)", messages_of(response)[0])[1]
    assert secret not in str(AuditEntry.objects.values())
    assert ApiKey.objects.get().digest.hex() not in str(AuditEntry.objects.values())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 256}, "at most 255 characters"),
        ({"scopes": []}, "This field is required."),
        ({"scopes": ["everything"]}, "everything is not one of the available choices"),
        ({"expires_in_days": "0"}, "greater than or equal to 1"),
        ({"expires_in_days": "36501"}, "less than or equal to 36500"),
    ],
)
def test_it_refuses_a_key_that_makes_no_sense(operator, fields, complaint):
    response = operator.post(f"{KEYS}add/", {"name": "billing", "scopes": ["read"]} | fields)
    assert complaint in str(response.context["errors"])
    assert not ApiKey.objects.exists()


def test_it_makes_no_key_for_who_may_only_look(db):
    answer = staff_client("view_apikey").post(f"{KEYS}add/", {"name": "billing", "scopes": ["read"]})
    assert answer.status_code == 403
    assert not ApiKey.objects.exists()


def test_it_neither_changes_nor_deletes_api_keys(operator, key):
    urls = (page_of(key), f"{KEYS}{key.id}/delete/")
    assert [operator.post(url, {"name": "mine"}).status_code for url in urls] == [403, 403]


def test_it_revokes_no_key_on_a_get(operator, key):
    operator.get(KEYS, {"action": "revoke", "_selected_action": str(key.id), "confirmed": "yes"})
    key.refresh_from_db()
    assert key.revoked_at is None


def test_it_revokes_api_keys_once_that_is_confirmed(operator, key):
    question = act(operator, KEYS, "revoke", key).content.decode()
    assert "Revoke API keys?" in question
    assert f'name="_selected_action" value="{key.id}"' in question
    key.refresh_from_db()
    assert key.revoked_at is None

    response = act(operator, KEYS, "revoke", key, confirmed="yes")
    assert messages_of(response) == ["Revoked 1 API key."]
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert messages_of(act(operator, KEYS, "revoke", key)) == ["These API keys are revoked already."]


def test_it_revokes_nothing_for_who_may_only_look(key):
    act(staff_client("view_apikey"), KEYS, "revoke", key, confirmed="yes")
    key.refresh_from_db()
    assert key.revoked_at is None


def test_it_revokes_more_keys_at_once_than_fit_into_a_form(operator):
    keys = [
        ApiKey(name=f"key {number}", prefix=f"{number:012}", digest=b"", scopes=["read"]) for number in range(1001)
    ]
    ApiKey.objects.bulk_create(keys)
    question = act(operator, f"{KEYS}?q=key", "revoke", keys[0], select_across="1")
    fields = re.findall(
        r'name="(select_across|_selected_action|action|confirmed)" value="([^"]*)"', question.content.decode()
    )
    assert len(fields) == 4
    assert ApiKey.objects.filter(revoked_at=None).count() == 1001
    response = operator.post(f"{KEYS}?q=key", dict(fields), follow=True)
    assert messages_of(response) == ["Revoked 1001 API keys."]
