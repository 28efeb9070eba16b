"""What runs has no more rights in the database than it needs; docs/operations.md, Database roles."""

import psycopg
import pytest

from tests.security.conftest import url_of
from tests.service import connect

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE loot (n int)",
        "CREATE SCHEMA loot",
        "DROP TABLE subscriptions",
        "ALTER TABLE subscriptions ADD COLUMN loot text",
        "TRUNCATE webhook_requests CASCADE",
        "CREATE FUNCTION loot() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER loot AFTER INSERT ON subscriptions EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "UPDATE django_migrations SET name = 'loot'",
        "DELETE FROM django_migrations",
        "UPDATE audit_entries SET actor = 'somebody else'",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "SELECT * FROM pg_authid",
        "COPY subscriptions TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE webhooks_owner",
        "ALTER ROLE webhooks_runtime SUPERUSER",
        "GRANT ALL ON subscriptions TO PUBLIC",
        "CREATE EXTENSION dblink",
    ],
)
def test_the_runtime_role_may_not(production, statement):
    with connect(url_of("webhooks_runtime")) as connection:
        if statement.startswith("GRANT"):
            # Not an error, but nothing is granted.
            connection.execute(statement)
            granted = "SELECT relacl::text LIKE '%{=%' AS is_open FROM pg_class WHERE relname = 'subscriptions'"
            assert connection.execute(granted).fetchall() == [{"is_open": False}]
            return
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_commands_run_under_the_runtime_role(production):
    assert production.manage("purge", "--older-than", "0").startswith("Purged ")
    assert production.manage("replay", "--status", "failed").startswith("Replayed ")
    assert "secrets encrypted anew" in production.manage("rotate_encryption")
    assert (
        production.manage("create_api_key", "--name", "x", "--scope", "read").splitlines()[-1].startswith("whk_")
    )
