"""manage.py, when something is in the way: a plain sentence and a status that is not zero."""

import os
import subprocess
import sys

import pytest

from tests.service import BASE_DIR, connect, free_port


def manage(*arguments, **settings):
    """Run a command and return its exit status and what it said."""
    result = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR,
        env=dict(os.environ) | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def test_a_database_that_does_not_answer_is_told_in_one_line():
    url = f"postgres://me:hidden@127.0.0.1:{free_port()}/none"
    status, said = manage("replay", "--status", "failed", "--dry-run", DATABASE_URL=url)
    assert status == 1
    assert said.startswith("The database does not work: ")
    assert "Connection refused" in said
    assert "hidden" not in said
    assert said.count("\n") == 1


def test_the_traceback_of_it_is_there_for_who_asks():
    settings = {"DATABASE_URL": f"postgres://me@127.0.0.1:{free_port()}/none"}
    _, said = manage("list_api_keys", "--traceback", **settings)
    assert said.startswith("Traceback")


def test_a_database_that_was_not_migrated_is_told():
    server_url = os.environ["DATABASE_URL"]
    with connect(server_url) as connection:
        connection.execute("CREATE DATABASE webhooks_not_migrated")
        try:
            told = manage("list_api_keys", DATABASE_URL=server_url.rpartition("/")[0] + "/webhooks_not_migrated")
        finally:
            connection.execute("DROP DATABASE webhooks_not_migrated WITH (FORCE)")
    assert told == (1, "The database has not been migrated: run `manage.py migrate` first.\n")


def test_a_setting_that_cannot_be_read_is_told_in_one_line():
    told = "Cannot start: MAX_BODY_BYTES is '1 MB': a number is needed.\n"
    assert manage("list_api_keys", MAX_BODY_BYTES="1 MB") == (1, told)


def test_an_argument_that_is_no_text_is_told():
    told = "This argument is no text in the encoding of this terminal: 'a\\udcff'.\n"
    assert manage("revoke_api_key", "a\udcff") == (1, told)


def test_what_a_terminal_does_not_know_is_spelled_out():
    said = manage("shell", "-v0", "-c", "print('Schlüssel…')", PYTHONIOENCODING="ascii")
    assert said == (0, "Schl\\xfcssel\\u2026\n")


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("why", ["No space left on device", "Broken pipe"])
def test_output_that_cannot_be_written_is_told(why, unbuffered):
    stdout = closed_pipe() if why == "Broken pipe" else os.open("/dev/full", os.O_WRONLY)
    result = subprocess.run(
        [sys.executable, "manage.py", "help"],
        cwd=BASE_DIR,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": unbuffered},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(stdout)
    assert (result.returncode, result.stderr) == (1, f"The output could not be written: {why}.\n")


def test_output_that_was_closed_from_the_beginning_is_told():
    told = "The output could not be written: Bad file descriptor.\n"
    assert manage_in_shell("help >&-") == (1, told)
    assert manage_in_shell("check >&- 2>&-") == (1, "")


def test_what_is_said_besides_may_be_closed():
    assert manage_in_shell("check -v0 2>&-")[0] == 0


def manage_in_shell(command):
    result = subprocess.run(
        ["/bin/sh", "-c", f"exec '{sys.executable}' manage.py {command}"],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr
