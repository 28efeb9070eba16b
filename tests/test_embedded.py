"""PostgreSQL and Redis from wheels: their data stays, their processes do not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from config import embedded
from tests.service import BASE_DIR, connect
from tests.waiting import wait_for_end


@pytest.fixture
def folder(open_folder: Path) -> Path:
    return open_folder


def test_data_is_kept_between_runs(folder):
    server = embedded.start_postgresql(folder, durable=False)
    with connect(embedded.database_url(folder)) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    server.stop()
    server = embedded.start_postgresql(folder, durable=False)
    try:
        with connect(embedded.database_url(folder)) as connection:
            assert connection.execute("SELECT count(*) AS n FROM kept").fetchone() == {"n": 0}
    finally:
        server.stop()


def test_redis_keeps_its_data_and_listens_to_nobody_else(folder):
    server = embedded.start_redis(folder)
    with redis.Redis.from_url(embedded.redis_url(folder)) as client:
        client.set("kept", "yes")
        assert client.config_get("port") == {"port": "0"}
    server.stop()
    server = embedded.start_redis(folder)
    with redis.Redis.from_url(embedded.redis_url(folder)) as client:
        assert client.get("kept") == b"yes"
    server.stop()
    assert server.process.returncode == 0


def test_a_long_path_is_no_hindrance(folder):
    deep = folder / ("long" * 15) / ("longer" * 10)
    server = embedded.start_postgresql(deep, durable=False)
    try:
        with connect(embedded.database_url(deep)) as connection:
            assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    finally:
        server.stop()
        embedded.socket_folder(deep, "postgresql").rmdir()


def test_it_runs_in_a_folder_that_nobody_else_can_enter(folder):
    """Run by root, whose PostgreSQL is another user's, it keeps its data elsewhere."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = embedded.start_postgresql(closed / ".data", durable=False)
    try:
        with connect(embedded.database_url(closed / ".data")) as connection:
            assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
        elsewhere = (closed / ".data" / "postgresql").resolve()
        subprocess.run(["rm", "-rf", str(elsewhere)], check=True)


def test_the_servers_end_when_their_parent_is_killed(folder):
    program = (
        "import sys, time; from pathlib import Path; from config import embedded\n"
        "folder = Path(sys.argv[1])\n"
        "servers = [embedded.start_postgresql(folder, durable=False), embedded.start_redis(folder)]\n"
        "print(*(server.process.pid for server in servers), flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
    for pid in pids:
        wait_for_end(pid)


def test_data_of_another_version_is_refused_in_words(folder):
    server = embedded.start_postgresql(folder, durable=False)
    server.stop()
    (folder / "postgresql" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(embedded.EmbeddedServerError, match="was written by PostgreSQL 12"):
        embedded.start_postgresql(folder, durable=False)


def test_a_server_that_does_not_start_is_told_with_its_last_words(folder):
    server = embedded.start_postgresql(folder, durable=False)
    server.stop()
    with (folder / "postgresql" / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("\nshared_buffers = 'nonsense'\n")
    with pytest.raises(embedded.EmbeddedServerError, match=r"PostgreSQL did not start: .*contains errors"):
        embedded.start_postgresql(folder, durable=False)
