"""No secret, key, signature, password or payload leaks into the database, Redis, an answer or a log."""

import base64
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from django_otp.oath import TOTP

from subscriptions import signing
from tests.certificates import make_pair
from tests.conftest import ingest_body
from tests.receiver import Answer, Receiver, running_receiver
from tests.security.conftest import url_of
from tests.service import Service, connect, free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

OVER_TLS = {"X-Forwarded-Proto": "https"}
SECRET = "zebra-signing-secret-of-a-tenant"
NEXT_SECRET = "zebra-signing-secret-after-the-rotation"
PASSWORD = "zebra-password-of-the-admin"
PAYLOAD = "zebra-payload-of-an-event"
TYPED_KEY = "whk_0123456789ab_zebra-key-that-was-mistyped"
TYPED_SIGNATURE = "sha256=" + "5eb2a" * 12 + "dead"

# What a subscription's calls carry besides: the credentials, and what of them is secret.
CREDENTIALS: list[tuple[dict[str, Any], set[str]]] = [
    ({"secret_headers": {"X-Tenant-Key": "zebra-secret-header"}}, {"zebra-secret-header"}),
    ({"auth": {"type": "bearer", "token": "zebra-bearer-token"}}, {"zebra-bearer-token"}),
    ({"auth": {"type": "basic", "username": "u", "password": "zebra-basic-password"}}, {"zebra-basic-password"}),
    ({"auth": {"type": "api_key", "header": "X-Key", "value": "zebra-key-value"}}, {"zebra-key-value"}),
]


class Caller:
    """Somebody who uses every path, and remembers what must not be seen elsewhere."""

    def __init__(self, production: Service) -> None:
        self.production = production
        self.key = production.manage("create_api_key", "--name", "caller", "--scope", "read", "--scope", "manage")
        self.key = self.key.splitlines()[-1]
        self.metrics_token = production.environment["METRICS_TOKEN"]
        self.secrets = {SECRET, NEXT_SECRET, PASSWORD, self.key, TYPED_KEY, self.metrics_token}
        self.signatures = {TYPED_SIGNATURE}
        self.answers: list[requests.Response] = []

    def call(self, method: str, path: str, *, key: str | None = None, **options: Any) -> requests.Response:
        headers = OVER_TLS | {"Authorization": f"Bearer {key or self.key}"} | options.pop("headers", {})
        url = self.production.url + path
        answer = requests.request(method, url, headers=headers, allow_redirects=False, timeout=30, **options)
        self.answers.append(answer)
        return answer

    def subscribe(self, target_url: str, **fields: Any) -> str:
        answer = self.call("POST", "/subscriptions", json={"target_url": target_url} | fields)
        assert answer.status_code == 201, answer.text
        self.answers.pop()  # the one answer that may tell the secret
        self.secrets.add(answer.json()["secret"])
        return str(answer.json()["id"])

    def ingest(self, subscription_id: str, secret: str = SECRET) -> str:
        body = ingest_body(subscription_id, body=json.dumps({"text": PAYLOAD}))
        signature = signing.sign_body(signing.key_of(secret), body)
        self.signatures.add(signature)
        headers = {"X-Webhook-Signature": signature, "Content-Type": "application/json"}
        answer = self.call("POST", "/ingest", data=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["request_id"])

    def wait_for(self, request_id: str, is_there: Callable[[dict[str, Any]], bool]) -> None:
        path = f"/status/request/{request_id}"
        wait_until(lambda: self.call("GET", path).json(), is_there, self.production.logs)


def use_the_api(caller: Caller, receiver: Receiver) -> None:
    """Deliver at once, after a failure, in vain, and to nobody; look at it all, and replay it."""
    receiver.script = [Answer(), Answer(status=500, body=b"not now")]
    good = caller.subscribe(receiver.url, secret=SECRET, retry_schedule=[1])
    delivered = caller.ingest(good)
    caller.wait_for(delivered, lambda status: status["status"] == "delivered")
    retried = caller.ingest(good)
    caller.wait_for(retried, lambda status: status["status"] == "delivered" and len(status["attempts"]) == 2)
    closed = f"127.0.0.1:{free_port()}/"
    for target in (f"http://{closed}", f"https://{closed}", receiver.url.replace("http:", "https:")):
        failing = caller.ingest(caller.subscribe(target, secret=SECRET, retry_schedule=[]))
        caller.wait_for(failing, lambda status: status["status"] == "failed")
    for fields, known in CREDENTIALS:
        caller.secrets |= known
        request_id = caller.ingest(caller.subscribe(receiver.url, secret=SECRET, **fields))
        caller.wait_for(request_id, lambda status: status["status"] == "delivered")
    use_access_tokens(caller, receiver)
    use_a_client_certificate(caller, receiver)
    caller.subscribe(receiver.url)
    rotated = caller.call("POST", f"/subscriptions/{good}/rotate-secret", json={"secret": NEXT_SECRET})
    assert rotated.json()["secret"] == NEXT_SECRET
    caller.answers.remove(rotated)
    caller.wait_for(caller.ingest(good, NEXT_SECRET), lambda status: status["status"] == "delivered")
    caller.wait_for(caller.ingest(good), lambda status: status["status"] == "delivered")
    caller.call("PATCH", f"/subscriptions/{good}", json={"description": "changed"})
    for verb in ("pause", "resume", "disable", "enable"):
        assert caller.call("POST", f"/subscriptions/{good}/{verb}", json={}).status_code == 200
    assert caller.call("POST", f"/subscriptions/{good}/test", json={}).status_code == 200
    caller.call("GET", "/subscriptions")
    caller.call("GET", "/requests")
    caller.call("GET", f"/subscriptions/{good}")
    caller.call("GET", f"/status/subscription/{good}")
    assert caller.call("GET", "/metrics", key=caller.metrics_token).status_code == 200
    caller.production.manage("replay", delivered)
    caller.wait_for(delivered, lambda status: status["attempt_count"] == 2 and status["status"] == "delivered")
    deleted = caller.subscribe(receiver.url, secret=SECRET)
    assert caller.call("DELETE", f"/subscriptions/{deleted}").status_code == 204


def use_access_tokens(caller: Caller, receiver: Receiver) -> None:
    """Fetch one that is good, and then something that is none."""
    caller.secrets |= {"zebra-client-secret", "zebra-access-token"}
    token_url = receiver.url.replace("/hook", "/token")
    oauth = {"type": "oauth2_client_credentials", "token_url": token_url, "client_id": "c"}
    oauth |= {"client_secret": "zebra-client-secret"}
    token = {"access_token": "zebra-access-token", "token_type": "Bearer", "expires_in": 3600}
    receiver.script = [Answer(body=json.dumps(token).encode())]
    fetching = caller.ingest(caller.subscribe(receiver.url, secret=SECRET, auth=oauth))
    caller.wait_for(fetching, lambda status: status["status"] == "delivered")
    assert receiver.arrivals[-1].headers["Authorization"] == "Bearer zebra-access-token"
    other = oauth | {"client_id": "d"}  # the token of one client is kept
    failing = caller.subscribe(receiver.url, secret=SECRET, retry_schedule=[], auth=other)
    caller.wait_for(caller.ingest(failing), lambda status: status["status"] == "failed")


def use_a_client_certificate(caller: Caller, receiver: Receiver) -> None:
    """Call with one, over TLS and in vain, and over plain HTTP, where it is of no use."""
    pair = make_pair(None)
    mutual_tls = {"type": "mtls", "certificate": pair.certificate, "private_key": pair.private_key}
    caller.secrets.add(pair.private_key.splitlines()[1])
    for target, outcome in ((receiver.url, "delivered"), (receiver.url.replace("http:", "https:"), "failed")):
        calling = caller.subscribe(target, secret=SECRET, retry_schedule=[], auth=mutual_tls)
        caller.wait_for(caller.ingest(calling), lambda status, outcome=outcome: status["status"] == outcome)


def make_mistakes(caller: Caller, receiver: Receiver) -> None:
    """Send what is refused, each time with something in it that must not be repeated anywhere."""
    good = caller.subscribe(receiver.url, secret=SECRET)
    body = ingest_body(good, body=json.dumps(PAYLOAD))
    json_type = {"Content-Type": "application/json"}
    caller.call("POST", "/ingest", data=body, headers=json_type | {"X-Webhook-Signature": TYPED_SIGNATURE})
    caller.call("POST", "/ingest", data=body[:-1], headers=json_type | {"X-Webhook-Signature": TYPED_SIGNATURE})
    caller.call("POST", "/ingest", data=body, headers={"Content-Type": "text/plain; charset=zebra-payload"})
    caller.call("GET", f"/subscriptions/{good}", key=TYPED_KEY)
    caller.call("GET", f"/subscriptions/{good}?api_key={TYPED_KEY}")
    caller.call("GET", "/metrics", key=TYPED_KEY)
    caller.call("GET", "/subscriptions", key=caller.metrics_token)
    caller.call("GET", f"/status/subscription/{good}?limit={SECRET}")
    caller.call("POST", "/subscriptions", json={"target_url": f"http://u:{SECRET}@127.0.0.1/", "secret": SECRET})
    caller.call("POST", "/subscriptions", json={"target_url": receiver.url, "secret": SECRET, "colour": PAYLOAD})
    caller.call("POST", "/subscriptions", json={"target_url": receiver.url, "secret": [SECRET]})
    for fields, _ in CREDENTIALS:
        wrong = {
            "auth": fields.get("auth", {}) | {"type": "magic"},
            "secret_headers": fields.get("secret_headers"),
        }
        caller.call("POST", "/subscriptions", json={"target_url": receiver.url} | wrong)
    caller.call("POST", "/subscriptions", data=b'{"secret": "' + SECRET.encode() + b'", ', headers=json_type)
    caller.call("POST", "/subscriptions", json={"target_url": receiver.url, "secret": SECRET * 20})


def have_things_break(caller: Caller, receiver: Receiver) -> None:
    """Have a worker meet a secret that it cannot read, and everybody a database that hangs up."""
    broken = caller.subscribe(receiver.url, secret=SECRET, retry_schedule=[])
    caller.call("POST", f"/subscriptions/{broken}/pause", json={})
    request_id = caller.ingest(broken)
    with connect(url_of("webhooks_owner")) as connection:
        connection.execute("UPDATE subscriptions SET secret = sha256(secret) WHERE id = %s", [broken])
        caller.call("POST", f"/subscriptions/{broken}/resume", json={})
        caller.wait_for(request_id, lambda status: status["status"] == "failed")
    assert caller.call("DELETE", f"/subscriptions/{broken}").status_code == 204
    with connect(os.environ["DATABASE_URL"]) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'webhooks_runtime'"
        )
    fine = caller.subscribe(receiver.url, secret=SECRET)
    caller.wait_for(caller.ingest(fine), lambda status: status["status"] == "delivered")


def work_in_the_admin(caller: Caller) -> None:
    """Log in with a wrong and with the right password, and open every kind of page."""
    environment = caller.production.environment
    environment |= {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "DJANGO_SUPERUSER_USERNAME": "zebra"}
    caller.production.manage("createsuperuser", "--noinput", "--email", "zebra@example.com")
    environment.pop("DJANGO_SUPERUSER_PASSWORD")
    url = caller.production.url
    session = requests.Session()
    cookies: dict[str, str] = {}

    def call(method: str, path: str, **options: Any) -> requests.Response:
        headers = OVER_TLS | {"Referer": url.replace("http:", "https:") + path}
        headers |= {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        answer = session.request(method, url + path, headers=headers, allow_redirects=False, timeout=30, **options)
        cookies.update({cookie.name: cookie.value or "" for cookie in answer.cookies})
        session.cookies.clear()
        caller.answers.append(answer)
        return answer

    def log_in(password: str) -> requests.Response:
        form = call("GET", "/admin/login/").text
        token = form.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        fields = {"username": "zebra", "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        return call("POST", "/admin/login/", data=fields)

    def set_up_a_one_time_code() -> None:
        """Do so, with the code that an app would show for the key that the page tells."""
        page = "/admin/one-time-code/"
        token = call("GET", page).text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        fields = {"csrfmiddlewaretoken": token}
        assert call("POST", page, data=fields | {"step": "begin", "password": PASSWORD}).status_code == 302
        key = call("GET", page).text.partition('<code id="key">')[2].partition("<")[0].replace(" ", "")
        caller.answers.pop()  # the one that may tell the key
        raw = base64.b32decode(key)
        totp = TOTP(raw)
        totp.time = time.time()
        confirmed = call("POST", page, data=fields | {"step": "confirm", "code": f"{totp.token():06}"})
        caller.answers.pop()  # the one that may tell the backup codes
        codes = re.findall(r"\b[a-z2-7]{8}$", confirmed.text.partition('id="backup-codes"')[2], re.MULTILINE)
        assert len(codes) == 10
        caller.secrets |= {key, raw.hex(), *codes}

    assert log_in(PASSWORD + " but wrong").status_code == 200
    assert log_in(PASSWORD).status_code == 302
    set_up_a_one_time_code()
    pages = ["/admin/"]
    for model in ("subscriptions/subscription", "subscriptions/apikey", "deliveries/webhookrequest"):
        listed = call("GET", f"/admin/{model}/")
        assert listed.status_code == 200
        link = listed.text.partition(f'href="/admin/{model}/')[2].partition('"')[0]
        pages.append(f"/admin/{model}/{link}")
    assert [call("GET", page).status_code for page in pages] == [200] * len(pages)


@pytest.fixture(scope="module")
def caller(production: Service) -> Caller:
    """Everything that a tenant and an operator do has been done, well and badly."""
    caller = Caller(production)
    with running_receiver() as receiver:
        use_the_api(caller, receiver)
        make_mistakes(caller, receiver)
        have_things_break(caller, receiver)
        work_in_the_admin(caller)
        for arrival in receiver.arrivals:
            if arrival.path == "/token":
                continue
            headers = {name.lower(): value for name, value in arrival.headers.items()}
            caller.signatures |= {headers["x-webhook-signature"], *headers["webhook-signature"].split()}
        assert len(receiver.arrivals) >= 4
    return caller


def forms_of(text: str) -> set[bytes]:
    """Return a text in the forms that it might be found in."""
    raw = text.encode()
    forms = {raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()}
    if text.startswith("whsec_"):
        forms |= {raw.removeprefix(b"whsec_"), signing.key_of(text), signing.key_of(text).hex().encode()}
    for prefix in ("sha256=", "v1,"):
        if text.startswith(prefix):
            forms.add(raw.removeprefix(prefix.encode()))
    return forms


def found(texts: set[str], where: bytes) -> list[str]:
    return sorted(text for text in texts if any(form in where for form in forms_of(text)))


def everything_in_the_database() -> bytes:
    """Return every value of every column of every table, as bytes."""

    def flat(value: Any) -> bytes:
        if isinstance(value, bytes | memoryview):
            return bytes(value)
        return json.dumps(value, default=str, ensure_ascii=False).encode()

    parts = []
    with connect(url_of("webhooks_owner")) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for table in tables:
            rows = connection.execute(f'SELECT * FROM "{table["relname"]}"').fetchall()
            parts += [flat(value) for row in rows for value in row.values()]
    return b"\n".join(parts)


def test_the_database_holds_no_secret_key_signature_or_password(caller):
    dump = everything_in_the_database()
    assert PAYLOAD.encode() in dump
    assert found(caller.secrets | caller.signatures, dump) == []


def test_redis_was_never_told_a_secret_a_payload_or_a_signature(caller, redis_writes):
    assert b"deliver_due" in redis_writes
    assert found(caller.secrets | caller.signatures | {PAYLOAD}, redis_writes) == []


def test_no_log_holds_a_secret_a_payload_or_a_signature(caller):
    logs = caller.production.logs().encode()
    assert b"delivery attempted" in logs
    environment = caller.production.environment
    keys = {environment["SECRET_KEY"], *environment["SECRET_KEYS"].split(",")}
    assert found(caller.secrets | caller.signatures | keys | {PAYLOAD}, logs) == []


def test_no_answer_holds_a_secret_a_key_or_a_signature(caller):
    for answer in caller.answers:
        told = answer.content + str(answer.headers).encode()
        # What the caller wrote into the URL comes back to them in no answer either.
        assert found(caller.secrets | caller.signatures, told) == [], answer.url
        assert answer.status_code < 500, answer.text
