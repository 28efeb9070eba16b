"""README.md and docs/receiving.md do what they say: their lines are really run."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from subscriptions import signing
from tests.service import BASE_DIR, free_port

README = (BASE_DIR / "README.md").read_text(encoding="utf-8")
RECEIVING = (BASE_DIR / "docs/receiving.md").read_text(encoding="utf-8")
WAIT_SECONDS = 60

SETTING_SOURCES = ("config/settings.py", "config/up.py", "Procfile")
SETTING = re.compile(
    r"""env\.\w+\("([A-Z_]+)"|Env\(\)\.\w+\("([A-Z_]+)"|environ\.get\("([A-Z_]+)"|\$\{([A-Z_]+):-"""
)
NOT_SETTINGS = {"PATH"}

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a secret in words")
BODY = b'{"test": 2432232314}'


def section(text: str, title: str) -> str:
    """Return what stands between a second-level heading and the next."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def settings_read() -> set[str]:
    """Return the name of every setting that the code reads from the environment."""
    texts = [(BASE_DIR / source).read_text() for source in SETTING_SOURCES]
    return {name for text in texts for names in SETTING.findall(text) for name in names if name} - NOT_SETTINGS


def commands() -> set[str]:
    return {path.stem for path in BASE_DIR.glob("*/management/commands/[a-z]*.py")}


class Running:
    """A process in a group of its own, and the lines it has printed so far."""

    def __init__(self, command: list[str], *, cwd: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def wait_for_line(self, text: str, *, count: int = 1) -> list[str]:
        """Wait until `count` lines have `text` in them, and return all lines."""

        def are_there() -> bool:
            return sum(text in line for line in self.lines) >= count

        with self._changed:
            assert self._changed.wait_for(are_there, WAIT_SECONDS), f"no {text!r} in:\n" + "\n".join(self.lines)
            return list(self.lines)

    def stop(self) -> None:
        """End the process and its group, gently at first."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Shell:
    """A bash that stays, as the newcomer's third terminal does."""

    def __init__(self, process: Running) -> None:
        self._process = process

    def run(self, lines: str) -> str:
        """Run lines and return what they printed; fail if the last of them does."""
        mark = uuid.uuid4().hex
        before = len(self._process.lines)
        self._process.write(f"{lines}\necho {mark} $?\n")
        printed = self._process.wait_for_line(mark)[before:]
        assert printed[-1] == f"{mark} 0", "\n".join([lines, *printed])
        return "\n".join(printed[:-1])


@contextmanager
def checkout() -> Iterator[tuple[Path, dict[str, str]]]:
    """Copy what a newcomer would check out, so that a `.env` here is not read; give its environment too."""
    # Not pytest's tmp_path, which is closed to the user that PostgreSQL runs as for root.
    with tempfile.TemporaryDirectory(prefix="webhooks-readme-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "checkout"
        Path(folder).chmod(0o755)
        shutil.copytree(BASE_DIR, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "staticfiles"))
        (copy / ".venv").symlink_to(sys.prefix)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        yield copy, kept | {"DATA_DIR": str(Path(folder) / "data"), "PYTHONUNBUFFERED": "1"}


def with_ports(lines: str, ports: dict[str, str]) -> str:
    """Move the documented ports to free ones; a receiver's default port becomes an option."""
    if "webhook_receiver" in lines and "--port" not in lines:
        lines = lines.replace("webhook_receiver", "webhook_receiver --port 9000")
    return re.sub(r"\b(8000|9000|9001)\b", lambda match: ports[match[0]], lines)


def settled_status(url: str) -> dict[str, Any]:
    """Ask for a request until it is settled, as the newcomer reads and waits."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        status: dict[str, Any] = requests.get(url, timeout=10).json()
        if status["status"] != "pending":
            return status
        time.sleep(0.05)
    raise AssertionError(f"still pending: {status}")


@pytest.fixture(scope="module")
def walk() -> Iterator[dict[str, Any]]:
    """Walk through the README: start what it starts, type what it types, and note what came of it."""
    ports = {port: str(free_port()) for port in ("8000", "9000", "9001")}
    start, *following = [with_ports(lines, ports) for lines in blocks(section(README, "Try it"), "bash")]
    assert start == "make run\n"
    with ExitStack() as stack:
        folder, environment = stack.enter_context(checkout())

        def launch(command: list[str], **settings: str) -> Running:
            process = Running(command, cwd=folder, environment=environment | settings)
            stack.callback(process.stop)
            return process

        service = launch([".venv/bin/python", "-m", "config.up"], PORT=ports["8000"])
        service.wait_for_line("web.1 started")
        wait_for_health(f"http://127.0.0.1:{ports['8000']}/health", service)
        yield follow(following, launch, f"http://127.0.0.1:{ports['8000']}") | {"service": service.lines}


def wait_for_health(url: str, service: Running) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=5).json() == {"status": "ok"}:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("\n".join(service.lines))


def follow(terminals: list[str], launch: Callable[..., Running], url: str) -> dict[str, Any]:
    """Run block after block; between two of them, wait until the last request is settled."""
    shell = Shell(launch(["bash"]))
    receivers, answers, statuses = [], [], {}
    for lines in terminals:
        if "webhook_receiver" in lines:
            receivers.append(launch(["bash", "-c", "exec " + lines]))
            receivers[-1].wait_for_line("Receiving on")
            continue
        answers.append(shell.run(lines))
        request_id = shell.run("echo $REQUEST")
        if request_id:
            statuses[request_id] = settled_status(f"{url}/status/request/{request_id}")
    return {"receivers": receivers, "answers": answers, "statuses": list(statuses.values())}


@pytest.mark.processes
def test_the_walk_through_delivers(walk):
    first, second = walk["statuses"]
    assert [attempt["error"] for attempt in first["attempts"]] == [None]
    assert [attempt["error"] for attempt in second["attempts"]] == ["http_5xx", None, None]
    assert [attempt["trigger"] for attempt in second["attempts"]] == ["initial", "retry", "replay"]
    assert (first["status"], second["status"]) == ("delivered", "delivered")


@pytest.mark.processes
def test_the_walk_through_shows_signatures_that_are_valid(walk):
    for receiver, calls in zip(walk["receivers"], (1, 3), strict=True):
        judged = [line for line in receiver.wait_for_line("signatures:", count=calls) if "signatures:" in line]
        assert judged == ["  signatures: both valid"] * calls


@pytest.mark.processes
def test_the_walk_through_prints_what_it_says(walk):
    created, _, by_request, by_subscription, _, retried, replayed, purged = walk["answers"][1:]
    assert '"secret": "my-first-secret"' in created
    assert '"status": "delivered"' in by_request
    assert '"success": true' in by_subscription
    assert '"error": "http_5xx"' in retried
    assert replayed == "1 of 1\nReplayed 1 requests.\n0 requests would be replayed."
    assert purged == "0 requests would be purged.\n2 requests would be purged."


@pytest.mark.processes
def test_the_service_tells_the_admin_login(walk):
    assert [line for line in walk["service"] if re.fullmatch(r"admin login: http://\S+/admin/ admin \S{16}", line)]


def test_the_settings_are_found_in_the_code():
    assert {"PORT", "HOST", "WEB_THREADS", "WORKER_PROCESSES", "DATA_DIR", "DATABASE_URL"} <= settings_read()


def test_the_readme_names_every_setting():
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", section(README, "Configuration"), re.MULTILINE))
    assert named == settings_read()


def test_the_example_of_dotenv_names_every_setting():
    example = (BASE_DIR / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE)) == settings_read()


def test_the_readme_names_every_command():
    named = set(re.findall(r"^\| `([a-z_]+)` \|", section(README, "Commands"), re.MULTILINE))
    assert commands() <= named


def test_the_links_lead_somewhere():
    for page in (README, RECEIVING, (BASE_DIR / "docs/operations.md").read_text(encoding="utf-8")):
        folder = BASE_DIR if page is README else BASE_DIR / "docs"
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page):
            assert (folder / target).exists(), target


def delivery_headers(secret: str) -> dict[str, str]:
    key, timestamp = signing.key_of(secret), int(time.time())
    signed = signing.sign_standard([key], message_id="msg_1", timestamp=timestamp, body=BODY)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,AAAA {signed}",
        "x-webhook-signature": signing.sign_body(key, BODY),
    }


@pytest.mark.parametrize("secret", SECRETS)
def test_the_python_of_the_receiving_page_verifies(secret):
    with_package, with_nothing_else = blocks(RECEIVING, "python")
    names: dict[str, Any] = {}
    exec(with_package, names)
    exec(with_nothing_else, names)
    headers = delivery_headers(secret)
    assert names["verify"](secret, headers, BODY) == {"test": 2432232314}
    for check in ("is_genuine", "is_genuine_body"):
        assert names[check](secret, headers, BODY)
        assert not names[check](secret, headers, BODY + b" ")
        assert not names[check]("another secret", headers, BODY)
    assert not names["is_genuine"](secret, headers | {"webhook-timestamp": "1614265330"}, BODY)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize("secret", SECRETS)
def test_the_javascript_of_the_receiving_page_verifies(secret):
    (script,) = blocks(RECEIVING, "javascript")
    headers = delivery_headers(secret)
    calls = [
        f"{name}({secret!r}, {headers!r}, {body.decode()!r})"
        for name in ("isGenuine", "isGenuineBody")
        for body in (BODY, BODY + b" ")
    ]
    printed = subprocess.run(
        ["node", "-e", f"{script}\nconsole.log([{', '.join(calls)}].join())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == "true,false,true,false\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("secret", SECRETS)
def test_the_shell_of_the_receiving_page_prints_both_signatures(secret, tmp_path):
    (script,) = blocks(RECEIVING, "bash")
    if secret.startswith("whsec_"):
        key_line = re.search(r'printf %s "\$\{SECRET#whsec_\}".*?(?=`)', RECEIVING)
        assert key_line is not None
        script = f"KEY=$({key_line[0]})\n" + script.partition("\n")[2]
    (tmp_path / "body").write_bytes(BODY)
    headers = delivery_headers(secret)
    given = {"SECRET": secret, "WEBHOOK_ID": "msg_1", "WEBHOOK_TIMESTAMP": headers["webhook-timestamp"]}
    printed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=dict(os.environ) | given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed == [headers["x-webhook-signature"], headers["webhook-signature"].split(" ")[1]]
