"""manage.py create_api_key: the key alone on the last line, and nowhere else."""

import io
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from subscriptions.audit import AuditEntry
from subscriptions.models import ApiKey

pytestmark = pytest.mark.django_db


def create_api_key(*arguments: str) -> list[str]:
    output = io.StringIO()
    call_command("create_api_key", *arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue().splitlines()


def test_it_prints_the_key_alone_on_the_last_line_and_stores_its_hash():
    first, text = create_api_key("--name", "billing system", "--scope", "read")
    row = ApiKey.objects.values().get()
    assert first == f"Created API key billing system (whk_{row['prefix']}…). It is shown only now:"
    assert text.startswith(f"whk_{row['prefix']}_")
    assert row | {"digest": bytes(row["digest"])} == {
        "id": row["id"],
        "name": "billing system",
        "prefix": row["prefix"],
        "digest": sha256(text.encode()).digest(),
        "scopes": ["read"],
        "tenant": None,
        "created_at": row["created_at"],
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
    }
    assert abs(row["created_at"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_it_makes_a_key_that_works(make_subscription):
    text = create_api_key("--name", "reader", "--scope", "read")[-1]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert client.get(f"/subscriptions/{make_subscription().id}").status_code == 200
    assert client.post("/subscriptions", {"target_url": "https://example.com/"}, format="json").status_code == 403


def test_it_takes_several_scopes_once_each_in_the_order_given():
    create_api_key(
        "--name", "x", "--scope", "manage", "--scope", "read", "--scope", "manage", "--scope", "publish"
    )
    assert ApiKey.objects.get().scopes == ["manage", "read", "publish"]


@pytest.mark.parametrize("tenant", ["acme", "", "Zoë & Söhne"])
def test_it_binds_the_key_to_a_tenant(tenant):
    create_api_key("--name", "x", "--scope", "read", "--tenant", tenant)
    assert ApiKey.objects.get().tenant == tenant


@pytest.mark.parametrize("days", ["1", "90", "0.5", "36500"])
def test_it_lets_the_key_expire(days):
    create_api_key("--name", "x", "--scope", "read", "--expires-in-days", days)
    key = ApiKey.objects.get()
    assert key.expires_at - key.created_at == timedelta(days=float(days))


def test_it_makes_another_key_under_the_same_name():
    texts = {create_api_key("--name", "x", "--scope", "read")[-1] for _ in range(3)}
    assert len(texts) == 3
    assert ApiKey.objects.filter(name="x").count() == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Error: the following arguments are required: --name, --scope"),
        (["--name", "x"], "Error: the following arguments are required: --scope"),
        (["--scope", "read"], "Error: the following arguments are required: --name"),
        (["--name", "", "--scope", "read"], "Error: argument --name: write a name to know the key by"),
        (["--name", "  ", "--scope", "read"], "Error: argument --name: write a name to know the key by"),
        (
            ["--name", "x" * 256, "--scope", "read"],
            "Error: argument --name: write at most 255 printable characters",
        ),
        (["--name", "a\0b", "--scope", "read"], "Error: argument --name: write at most 255 printable characters"),
        (["--name", "a\nb", "--scope", "read"], "Error: argument --name: write at most 255 printable characters"),
        (["--name", "x", "--scope", "admin"], "Error: argument --scope: invalid choice: 'admin'"),
        (["--name", "x", "--scope", ""], "Error: argument --scope: invalid choice: ''"),
        (
            ["--name", "x", "--scope", "read", "--tenant", "x" * 256],
            "Error: argument --tenant: write at most 255 printable characters",
        ),
        (
            ["--name", "x", "--scope", "read", "--expires-in-days", "soon"],
            "Error: argument --expires-in-days: write a number of days",
        ),
        *(
            (
                ["--name", "x", "--scope", "read", "--expires-in-days", days],
                "Error: argument --expires-in-days: a key expires after more than 0 and at most 36500 days",
            )
            for days in ("0", "-1", "nan", "inf", "36501")
        ),
    ],
)
def test_it_refuses_bad_input_and_makes_no_key(arguments, message):
    with pytest.raises(CommandError) as refused:
        create_api_key(*arguments)
    assert str(refused.value).startswith(message)
    assert not ApiKey.objects.exists()


def test_there_is_no_key_that_could_not_be_shown():
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("w") as full:
        call_command("create_api_key", "--name", "a", "--scope", "read", stdout=full)
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()
