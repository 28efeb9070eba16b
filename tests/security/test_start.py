"""Nothing starts in production without keys, or with settings that are known to be wrong."""

import base64
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from honcho.environ import parse_procfile

from tests.service import free_port

BASE_DIR = Path(__file__).resolve().parents[2]
PROCESSES = parse_procfile((BASE_DIR / "Procfile").read_text()).processes
ADVICE = "README.md, section “Running it for real”, tells how to make one."

pytestmark = pytest.mark.processes


def start(command: str, **environment: str) -> tuple[int, list[str]]:
    """Run a command to its end with production settings; return its exit status and what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    production = {
        "PATH": path,
        "DATA_DIR": os.environ["DATA_DIR"],
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "WEB_PROCESSES": "1",
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "SECRET_KEYS": base64.b64encode(os.urandom(32)).decode(),
        "ALLOWED_HOSTS": "hooks.example.com",
    }
    result = subprocess.run(
        f"exec {command}",
        shell=True,
        cwd=BASE_DIR,
        env=production | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout.splitlines()


@pytest.mark.parametrize("name", ["worker", "maintenance", "scheduler"])
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SECRET_KEY": ""}, f"SECRET_KEY is not set. {ADVICE}"),
        ({"SECRET_KEYS": ""}, f"SECRET_KEYS is not set. {ADVICE}"),
        ({"SECRET_KEYS": "c2hvcnQ="}, f"Key 1 of SECRET_KEYS is 5 bytes instead of 32. {ADVICE}"),
    ],
)
def test_a_process_says_in_one_sentence_why_it_does_not_start(name, environment, sentence):
    assert start(PROCESSES[name], **environment) == (1, [f"Cannot start: {sentence}"])


@pytest.mark.parametrize("command", ["migrate --noinput", "create_api_key --name x --scope read", "check"])
def test_no_command_runs_without_keys(command):
    said = [f"Cannot start: SECRET_KEYS is not set. {ADVICE}"]
    assert start(f"python manage.py {command}", SECRET_KEYS="") == (1, said)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SECRET_KEYS": ""}, f"SECRET_KEYS is not set. {ADVICE}"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY is short or can be guessed."),
        ({"ALLOWED_NETWORKS": "0.0.0.0/0"}, "ALLOWED_NETWORKS: 0.0.0.0/0 has public addresses in it"),
        ({"LEASE_MARGIN_SECONDS": "600"}, "A lease would outlast the time limit of its job."),
    ],
)
def test_web_says_why_it_does_not_start_and_gives_up(environment, sentence):
    status, said = start(PROCESSES["web"], **environment)
    assert status == 1
    # Each of its processes says it, and each of those is tried again before web gives up.
    reasons = {line for line in said if line.startswith("Cannot start:")}
    assert len(reasons) == 1
    assert reasons.pop().startswith(f"Cannot start: {sentence}")
    assert "Traceback" not in "\n".join(said)


def test_a_worker_does_not_start_with_settings_that_are_wrong():
    status, said = start(PROCESSES["worker"], ALLOWED_NETWORKS="::/0")
    assert status == 1
    assert "Traceback" not in "\n".join(said)
    assert any("(subscriptions.E006) ALLOWED_NETWORKS: ::/0 has public addresses in it" in line for line in said)
