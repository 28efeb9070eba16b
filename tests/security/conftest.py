"""The service as docs/operations.md has it in production: own keys, no development mode, least privileges."""

import base64
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import embedded
from tests.service import BASE_DIR, Service, connect, service

DATABASE = "webhooks_security"
ROLES = ("webhooks_owner", "webhooks_runtime")


def roles_sql() -> list[str]:
    """Return the statements for the database roles, as the operator finds them, block by block."""
    page = (BASE_DIR / "docs/operations.md").read_text(encoding="utf-8")
    section = page.partition("## Database roles\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [re.sub(r"DATABASE webhooks\b", f"DATABASE {DATABASE}", block) for block in blocks]


def url_of(role: str) -> str:
    """Return the URL of the test's database for another role, on the server that the tests use."""
    host = re.sub(r"^(\w+://)[^@/]*@", rf"\1{role}@", os.environ["DATABASE_URL"])
    return host.rpartition("/")[0] + "/" + DATABASE


def run_block(url: str, block: str) -> None:
    with connect(url) as connection:
        for statement in filter(str.strip, block.split(";")):
            connection.execute(statement)


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Web, worker, maintenance and scheduler in production, on a database and a Redis of their own."""
    server_url = os.environ["DATABASE_URL"]
    make_roles, grant, tighten = roles_sql()
    with connect(server_url) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}")
    run_block(server_url, make_roles)
    run_block(url_of("webhooks_owner"), grant)
    folder = tmp_path_factory.mktemp("production")
    redis_server = embedded.start_redis(folder)
    with service(
        folder,
        database_url=url_of("webhooks_owner"),
        redis_url=embedded.redis_url(folder),
        DEBUG="off",
        SECRET_KEY=secrets.token_urlsafe(48),
        SECRET_KEYS=base64.b64encode(os.urandom(32)).decode(),
        METRICS_TOKEN=secrets.token_urlsafe(32),
        ALLOWED_HOSTS="127.0.0.1",
        TRUST_FORWARDED_PROTO="on",
        ALLOWED_NETWORKS="127.0.0.0/8",
        # What a debugger would be told must not hold a secret either.
        LOG_LEVEL="DEBUG",
        DATA_DIR=str(folder),
    ) as made:
        run_block(url_of("webhooks_owner"), tighten)
        made.environment["DATABASE_URL"] = url_of("webhooks_runtime")
        for name in ("web", "worker", "maintenance", "scheduler"):
            made.start(name)
        yield made
    redis_server.stop()
    with connect(server_url) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        for role in ROLES:
            connection.execute(f"DROP ROLE {role}")


@pytest.fixture
def redis_writes(production: Service) -> bytes:
    """What Redis has kept of everything that was ever written to it, in one file or, from 7 on, in several."""
    folder = Path(production.environment["DATA_DIR"]) / "redis"
    return b"".join(file.read_bytes() for file in folder.rglob("appendonly.aof*"))
