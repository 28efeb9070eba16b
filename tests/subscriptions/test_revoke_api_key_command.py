"""manage.py revoke_api_key: the key is refused from then on."""

import io

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from subscriptions.api_keys import ApiKey
from subscriptions.audit import AuditEntry

pytestmark = pytest.mark.django_db


def revoke_api_key(text: str) -> str:
    output = io.StringIO()
    call_command("revoke_api_key", text, stdout=output)
    return output.getvalue()


@pytest.fixture
def key():
    return ApiKey.objects.create_key("billing", ["read"], tenant=None, valid_for=None)


def test_it_revokes_a_key_at_once(key):
    row, text = key
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert client.get("/subscriptions").status_code == 200
    assert revoke_api_key(f"whk_{row.prefix}") == f"Revoked API key billing (whk_{row.prefix}…).\n"
    assert client.get("/subscriptions").status_code == 401


def test_it_leaves_the_other_keys_alone(key):
    other, _ = ApiKey.objects.create_key("other", ["read"], tenant=None, valid_for=None)
    revoke_api_key(key[0].prefix)
    assert list(ApiKey.objects.usable()) == [other]


def test_it_says_so_when_the_key_was_revoked_already(key):
    row, _ = key
    revoke_api_key(row.prefix)
    first = ApiKey.objects.get().revoked_at
    assert revoke_api_key(row.prefix) == f"Revoked already: API key billing (whk_{row.prefix}…).\n"
    assert ApiKey.objects.get().revoked_at == first


def test_it_takes_the_whole_key_too_and_does_not_repeat_it(key):
    row, text = key
    assert text not in revoke_api_key(text)
    row.refresh_from_db()
    assert row.revoked_at is not None


def test_it_leaves_who_did_it_in_the_audit_log(key):
    row, _ = key
    revoke_api_key(row.prefix)
    revoke_api_key(row.prefix)
    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.action, entry.object_kind, entry.object_id) == (
        "command",
        "revoke",
        "API key",
        str(row.id),
    )


@pytest.mark.parametrize("text", ["", "whk_", "whk_000000000000", "billing", "a\0b", "%"])
def test_it_refuses_what_is_no_key(key, text):
    with pytest.raises(CommandError) as refused:
        revoke_api_key(text)
    assert str(refused.value) == "There is no such API key; list_api_keys shows them all."
    assert ApiKey.objects.usable().exists()
