"""`make run`, when something is in the way: a plain sentence and a status that is not zero."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from config import embedded, up
from tests.service import BASE_DIR, connect, free_port

pytestmark = pytest.mark.processes


@pytest.fixture
def run_up(open_folder):
    """Run config.up until it ends; returns its exit status and what it said."""

    def run(**settings):
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = kept | {"DATA_DIR": str(open_folder / "data"), "PORT": str(free_port())} | settings
        result = subprocess.run(
            [sys.executable, "-m", "config.up"],
            cwd=BASE_DIR,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_told_in_one_sentence(run_up, host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        status, said = run_up(HOST=host, PORT=str(port))
    assert status == 1
    assert said == (
        f"Cannot start: port {port} cannot be used (Address already in use). "
        f"Choose another one: make run PORT={port + 1}\n"
    )


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_it_says_where_it_is_on_an_address_of_ipv6(monkeypatch, capsys, host):
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", "8000")
    up._say_where(None)
    assert capsys.readouterr().out.startswith("Webhook delivery service: http://[::1]:8000  (")


def test_a_host_that_is_no_address_is_told(run_up):
    assert run_up(HOST="localhost") == (
        1,
        "Cannot start: HOST is 'localhost', which is not an IP address, such as 127.0.0.1.\n",
    )


@pytest.mark.parametrize("port", ["http", "0", "²", pytest.param("9" * 5000, id="huge")])
def test_a_port_that_is_none_is_told(run_up, port):
    assert run_up(PORT=port) == (1, f"Cannot start: PORT is {port!r}, which is not a port number.\n")


def test_keys_that_are_none_are_not_remembered(run_up):
    status, said = run_up(SECRET_KEYS="abc")
    assert (status, said.partition(" Make")[0]) == (1, "Cannot start: Key 1 of SECRET_KEYS is not base64.")
    _, said = run_up(DATABASE_URL=f"postgres://me@127.0.0.1:{free_port()}/none")
    assert said.startswith("Cannot start: the database does not work: ")


def test_a_database_that_does_not_answer_is_told(run_up):
    port = free_port()
    status, said = run_up(DATABASE_URL=f"postgres://me:hidden@127.0.0.1:{port}/none")
    assert status == 1
    assert said.startswith("Cannot start: the database does not work: ")
    assert "Connection refused" in said
    assert "hidden" not in said
    assert said.count("\n") == 1


def test_a_redis_that_does_not_answer_is_told(run_up):
    status, said = run_up(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", DATABASE_URL=os.environ["DATABASE_URL"])
    assert status == 1
    assert said.startswith("Cannot start: Redis does not answer: ")
    assert said.count("\n") == 1


def test_the_admin_user_is_not_made_before_its_password_can_be_told(run_up, open_folder):
    status, _ = run_up(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert status == 1
    server = embedded.start_postgresql(open_folder / "data", durable=False)
    try:
        with connect(embedded.database_url(open_folder / "data")) as connection:
            assert connection.execute("SELECT to_regclass('auth_user') AS users").fetchone() == {"users": None}
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WEB_PROCESSES", "two", "WEB_PROCESSES is 'two': a number is needed."),
        ("WORKER_PROCESSES", "0", "WORKER_PROCESSES is 0, and at least 1 is needed."),
        ("TICK_SECONDS", "0", "TICK_SECONDS is less than 1."),
        ("RETENTION_DAYS", "-1", "RETENTION_DAYS is less than 0. Give a number from 0 on."),
        ("REDIS_URL", "localhost:6379", "REDIS_URL is not the URL of a Redis, such as redis://host:6379/0"),
    ],
)
def test_settings_that_nothing_can_run_with_are_told(run_up, name, value, told):
    status, said = run_up(**{name: value})
    assert status == 1
    assert said.startswith(f"Cannot start: {told}")
    assert said.count("\n") == 1


def test_missing_keys_are_told_when_development_mode_is_off(run_up):
    status, said = run_up(DEBUG="off")
    assert status == 1
    assert said.startswith(
        "Cannot start: DEBUG is off, and SECRET_KEY, SECRET_KEYS, ALLOWED_HOSTS must then be set"
    )


def test_a_folder_that_cannot_be_made_is_told(run_up):
    status, said = run_up(DATA_DIR="/proc/nowhere")
    assert status == 1
    assert said == "Cannot start: No such file or directory: /proc/nowhere\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_was_lost_ends_it_before_the_processes_start(monkeypatch, number):
    monkeypatch.setattr(up, "_told_to_end", [])
    with pytest.raises(SystemExit):
        up._end(number, None)
    with pytest.raises(SystemExit) as ended:
        up._run()
    assert ended.value.code == 128 + number
