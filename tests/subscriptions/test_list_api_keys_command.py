"""manage.py list_api_keys: one line for each key, and nothing that would let one in."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command

from subscriptions.api_keys import ApiKey

pytestmark = pytest.mark.django_db


def list_api_keys(*arguments: str) -> list[str]:
    output = io.StringIO()
    call_command("list_api_keys", *arguments, stdout=output)
    return output.getvalue().splitlines()


def make_key(name, *scopes, tenant=None, **fields):
    key, text = ApiKey.objects.create_key(name, scopes, tenant=tenant, valid_for=None)
    ApiKey.objects.filter(id=key.id).update(**fields)
    return f"whk_{key.prefix}", text


def test_it_lists_the_keys_newest_first():
    billing, text = make_key(
        "billing system", "read", "manage", last_used_at=datetime(2026, 11, 24, 8, 5, tzinfo=UTC)
    )
    acme, _ = make_key("a", "publish", tenant="acme", expires_at=datetime(2126, 1, 2, 3, 4, tzinfo=UTC))
    nameless, _ = make_key("b", "read", tenant="")
    lines = list_api_keys()
    assert lines == [
        "key               name            scopes       tenant       state                     last used",
        f'{nameless}  b               read         ""           valid                     never',
        f"{acme}  a               publish      acme         expires 2126-01-02 03:04  never",
        f"{billing}  billing system  read,manage  all tenants  valid                     2026-11-24 08:05",
    ]
    assert text.split("_", 2)[2] not in "".join(lines)


def test_it_leaves_out_what_can_no_longer_be_used_unless_asked():
    past = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    revoked, _ = make_key("revoked", "read", revoked_at=past)
    expired, _ = make_key("expired", "read", expires_at=past)
    valid, _ = make_key("valid", "read", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert [line.split()[0] for line in list_api_keys()] == ["key", valid]
    lines = list_api_keys("--all")
    assert [line.split()[0] for line in lines] == ["key", valid, expired, revoked]
    assert "expired 2026-01-02 03:04" in lines[2]
    assert "revoked 2026-01-02 03:04" in lines[3]


def test_it_lists_the_keys_of_one_tenant():
    make_key("operator", "read")
    make_key("other", "read", tenant="globex")
    mine, _ = make_key("mine", "read", tenant="acme")
    assert [line.split()[0] for line in list_api_keys("--tenant", "acme")] == ["key", mine]


def test_it_shows_names_that_hide_text_as_they_are():
    make_key("x\u202ey", "read")
    assert r"x\u202ey" in list_api_keys()[1]


def test_it_lists_nothing_where_there_is_nothing():
    assert list_api_keys() == ["key  name  scopes  tenant  state  last used"]
