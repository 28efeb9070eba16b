"""docs/receiving.md: its lines judge real deliveries, and calls that only look like one."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from subscriptions import signing
from tests.documents import blocks
from tests.needs import NODE_FOLDER
from tests.receiver import Receiver
from tests.service import BASE_DIR

PAGE = (BASE_DIR / "docs/receiving.md").read_text(encoding="utf-8")
PAYLOAD = '{"total": 1.50, "name": "Zoë", "note": "\\u00e9"}'.encode()
SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a secret in wörds")
NEWER_SECRET = "whsec_bmV3ZXIgdGhhbiB0aGUgb3RoZXI="

# Judges a call by its signature: the secret, the headers by lower-case name, the raw body.
Judge = Callable[[str, Mapping[str, str], bytes], bool]


def with_python(function: str) -> Judge:
    names: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(block, names)

    def judge(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        return bool(names[function](secret, headers, body))

    return judge


def with_python_package(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    from standardwebhooks import WebhookVerificationError

    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0], names)
    try:
        return bool(names["verify"](secret, headers, body) == json.loads(body))
    except (WebhookVerificationError, ValueError):
        return False


def with_node(block: int, call: str) -> Judge:
    script = f"""{blocks(PAGE, "javascript")[block]}
        const {{ secret, headers, text }} = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
        const body = Buffer.from(text);
        console.log(String({call}));
    """

    def judge(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        given = json.dumps({"secret": secret, "headers": dict(headers), "text": body.decode()})
        result = run(["node", "-e", script], given.encode(), cwd=NODE_FOLDER)
        return result.stdout.strip() == b"true"

    return judge


# Judges by whether the library throws one of its own errors; any other fails the test.
NODE_PACKAGE_CALL = """(() => {
    try { verify(secret, headers, body); return true } catch (error) {
        if (error.name !== "WebhookVerificationError") throw error;
        return false;
    }
})()"""


def with_shell(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    arguments = [secret, *(headers.get(name, "") for name in names)]
    script = blocks(PAGE, "bash")[0] + '\nif is_genuine "$@"; then echo yes; else echo no; fi'
    result = run(["bash", "-euo", "pipefail", "-c", script, "bash", *arguments], body)
    return result.stdout == b"yes\n"


def run(command: list[str], given: bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(command, input=given, capture_output=True, check=False, **options)
    assert (result.returncode, result.stderr) == (0, b"")
    return result


STANDARD_JUDGES = [
    pytest.param(with_python_package, id="python-package"),
    pytest.param(with_python("is_genuine"), id="python-by-hand"),
    pytest.param(with_node(0, NODE_PACKAGE_CALL), id="node-package", marks=[pytest.mark.node, pytest.mark.npm]),
    pytest.param(with_node(1, "isGenuine(secret, headers, body)"), id="node-by-hand", marks=pytest.mark.node),
    pytest.param(with_shell, id="shell", marks=pytest.mark.openssl),
]
BODY_JUDGES = [
    pytest.param(with_python("is_genuine_body"), id="python"),
    pytest.param(with_node(1, "isGenuineBody(secret, headers, body)"), id="node", marks=pytest.mark.node),
]


@pytest.fixture
def deliver_one(
    make_subscription: Callable[..., Any],
    make_request: Callable[..., Any],
    deliver: Callable[[], int],
    receiver: Receiver,
) -> Callable[..., tuple[dict[str, str], bytes]]:
    """Deliver a request and return what arrived: headers by lower-case name, and the body.

    It is signed under `secret`, and if there is a `newer` one, the secret is being rotated.
    """

    def deliver_one(secret: str, *, newer: str | None = None) -> tuple[dict[str, str], bytes]:
        subscription = make_subscription(receiver.url, secret=secret)
        if newer is not None:
            subscription.rotate_secret(newer, overlap=timedelta(hours=1))
        make_request(subscription, PAYLOAD)
        deliver()
        arrival = receiver.arrivals[-1]
        return {name.lower(): value for name, value in arrival.headers.items()}, arrival.body

    return deliver_one


def signed(secret: str, *, seconds_ago: int = 0) -> dict[str, str]:
    """Return the headers of a delivery that was signed some time ago."""
    key, timestamp = signing.key_of(secret), int(time.time()) - seconds_ago
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign_standard([key], message_id="msg_1", timestamp=timestamp, body=PAYLOAD),
        "x-webhook-signature": signing.sign_body(key, PAYLOAD),
    }


@pytest.mark.parametrize("judge", STANDARD_JUDGES + BODY_JUDGES)
@pytest.mark.parametrize("secret", SECRETS)
def test_it_takes_a_delivery_and_no_other_body(judge, secret, deliver_one):
    headers, body = deliver_one(secret)
    assert body == PAYLOAD
    assert judge(secret, headers, body)
    assert not judge(secret, headers, body + b" ")


@pytest.mark.parametrize("judge", STANDARD_JUDGES + BODY_JUDGES)
def test_it_refuses_what_is_signed_with_another_secret(judge):
    assert not judge(SECRETS[0], signed(SECRETS[1]), PAYLOAD)


@pytest.mark.parametrize("judge", STANDARD_JUDGES)
@pytest.mark.parametrize("seconds_ago", [600, -600])
def test_it_refuses_a_time_that_is_far_off(judge, seconds_ago):
    assert not judge(SECRETS[0], signed(SECRETS[0], seconds_ago=seconds_ago), PAYLOAD)


@pytest.mark.parametrize("judge", STANDARD_JUDGES)
def test_it_takes_a_delivery_with_either_secret_during_a_rotation(judge, deliver_one):
    headers, body = deliver_one(SECRETS[1], newer=NEWER_SECRET)
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert judge(NEWER_SECRET, headers, body)
    assert judge(SECRETS[1], headers, body)
    assert not judge(SECRETS[0], headers, body)


@pytest.mark.parametrize("judge", STANDARD_JUDGES)
@pytest.mark.parametrize(
    "spoilt",
    [
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": ""},
        {"webhook-id": "msg_2"},
        {"webhook-signature": "v1,AAAA v2,AAAA"},
        {"webhook-signature": ""},
    ],
)
def test_it_refuses_headers_that_are_spoilt(judge, spoilt):
    assert not judge(SECRETS[0], signed(SECRETS[0]) | spoilt, PAYLOAD)


@pytest.mark.parametrize("judge", STANDARD_JUDGES + BODY_JUDGES)
def test_it_refuses_a_call_without_any_of_the_headers(judge):
    assert not judge(SECRETS[0], {}, PAYLOAD)


@pytest.mark.openssl
def test_the_shell_tells_what_the_signature_of_the_body_has_to_be(tmp_path, deliver_one):
    (line,) = [line for line in PAGE.splitlines() if line.startswith("What `X-Webhook-Signature` has to be")]
    command = line.partition(": `")[2].removesuffix("`.")
    headers, body = deliver_one(SECRETS[1])
    (tmp_path / "body").write_bytes(body)
    script = blocks(PAGE, "bash")[0] + command
    environment = dict(os.environ) | {"SECRET": SECRETS[1]}
    result = run(["bash", "-euo", "pipefail", "-c", script], b"", cwd=tmp_path, env=environment)
    assert result.stdout.decode().strip() == headers["x-webhook-signature"]
