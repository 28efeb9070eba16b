"""Every refusal is a problem document (RFC 9457); whatever is sent, nothing answers 500 or HTML."""

import base64
import uuid
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from subscriptions.models import Subscription
from tests import wsgi
from tests.expected import REQUEST_ID, invalid, problem

NEW = b'{"target_url": "https://example.com/"}'
NOT_FOUND = problem(404, "not_found", "There is no such path.")
NOT_KNOWN = {"code": "unknown", "detail": "This parameter is not known."}
UNKNOWN_PATHS = ["/", "/nothing", "/subscriptions/", "/subscriptions/5", "/status/request/x", "/é"]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Sends any bytes with any headers to the whole service, with an operator's key."""

    authorization: str

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> wsgi.Answer:
        usual = {
            "Authorization": self.authorization,
            "Content-Type": "application/json",
            "Request-Id": REQUEST_ID,
        }
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return wsgi.call(method, path, body, usual | given)

    def post(self, body: bytes, **headers: str) -> wsgi.Answer:
        return self.send("POST", "/subscriptions", body, **headers)


@pytest.fixture
def caller(client_with_key):
    return Caller(authorization=client_with_key._credentials["HTTP_AUTHORIZATION"])


def assert_problem(answer, document):
    assert answer.json() == document
    assert answer.status == document["status"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Request-Id"] == document["request_id"]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_it_answers_404_for_an_unknown_path(caller, settings, path, debug):
    settings.DEBUG = debug
    assert_problem(caller.send("GET", path), NOT_FOUND)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/subscriptions", "GET, POST, HEAD, OPTIONS"),
        ("PUT", "/subscriptions", "GET, POST, HEAD, OPTIONS"),
        ("PUT", f"/subscriptions/{uuid.UUID(int=0)}", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("GET", f"/subscriptions/{uuid.UUID(int=0)}/pause", "POST, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("GET", "/ingest", "POST, OPTIONS"),
        ("DELETE", f"/status/request/{uuid.UUID(int=0)}", "GET, HEAD, OPTIONS"),
    ],
)
def test_it_answers_405_for_a_method_that_a_path_does_not_have(caller, method, path, allowed):
    answer = caller.send(method, path)
    assert_problem(answer, problem(405, "method_not_allowed", f'Method "{method}" not allowed.'))
    assert answer.headers["Allow"] == allowed


def test_it_answers_413_for_a_body_over_the_limit_and_not_for_one_at_it(caller, settings):
    settings.MAX_BODY_BYTES = 100
    assert caller.post(NEW.ljust(100)).status == 201
    refusal = problem(413, "too_large", "The request body may have at most 100 bytes.")
    assert_problem(caller.post(NEW.ljust(101)), refusal)
    assert_problem(caller.post(b"", Content_Length="101"), refusal)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'APPLICATION/JSON;charset="UTF-8"',
        "application/json; charset=utf8; charset=utf-8",
        "application/json; odata=verbose",
    ],
)
def test_it_takes_json_in_utf_8(caller, content_type):
    assert caller.post(NEW, Content_Type=content_type).status == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json; charset=utf-7",
        "application/json; charset=bz2_codec",
        "application/json; charset=hex",
        "application/json; charset=undefined",
        "application/json; charset=nonsense",
        "application/json; charset=",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset=utf-16; charset=utf-8",
        "application/json, application/json",
    ],
)
def test_it_answers_415_for_any_other_charset(caller, content_type):
    answer = caller.post(NEW, Content_Type=content_type)
    # Which of two sentences depends on who noticed first, the choice of a parser or the parser.
    assert_problem(answer, problem(415, "unsupported_media_type", answer.json()["detail"]))
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/xml",
        "application/x-www-form-urlencoded",
    ],
)
def test_it_answers_415_for_another_media_type(caller, content_type):
    answer = caller.post(NEW, Content_Type=content_type)
    assert_problem(answer, problem(415, "unsupported_media_type", "Send application/json in UTF-8."))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_it_answers_415_for_a_content_encoding(caller, encoding):
    answer = caller.post(b"{}", Content_Encoding=encoding)
    assert_problem(answer, problem(415, "unsupported_media_type", "Send the body without a Content-Encoding."))


@pytest.mark.parametrize(
    "parameter",
    [
        "charset=utf-8",
        "charset=utf-16",
        "charset=hex",
        "charset=undefined",
        "charset=bz2_codec",
        "charset=rot13",
        "charset=idna",
        "charset=punycode",
        "charset=nonsense",
        "charset=",
        "charset*=utf-8''hex",
        "charset*=hex''%41",
        "x*=hex''%41",
        "x*=nonsense''%41",
        "x*='",
    ],
)
@pytest.mark.parametrize("query", ["limit=5&name=%C3%A9", "&".join(["name"] * 1001)])
def test_it_never_fails_over_a_codec_that_a_header_names(caller, make_subscription, parameter, query):
    path = f"/status/subscription/{make_subscription().id}?{query}"
    answer = caller.send("GET", path, Content_Type=f"application/json; {parameter}")
    # As the codec has it, the parameter has another name.
    errors = [{"pointer": error["pointer"]} | NOT_KNOWN for error in answer.json().get("errors", [])]
    if errors:
        assert_problem(answer, problem(400, "invalid", "The request is not valid; see errors.", *errors))
    else:
        assert_problem(answer, problem(400, "bad_request", "The request could not be understood."))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b"{'target_url': 1}",
        b'{"target_url": "https://example.com/",}',
        NEW + b" {}",
        b'{"timeout_seconds": NaN}',
        b'{"timeout_seconds": Infinity}',
        b'{"timeout_seconds": -Infinity}',
        b'{"timeout_seconds": 1e999}',
        b'{"timeout_seconds": ' + b"1" * 5000 + b"}",
        b'{"timeout_seconds": 015}',
        b'{"description": "\xff"}',
        b'{"description": "\xed\xa0\x80"}',
        b'{"description": "\\ud800"}',
        b'{"description": "\\ud800x"}',
        b'{"description": "\x00"}',
        b'{"description": "\\x41"}',
        b"\xef\xbb\xbf" + NEW,
        NEW.decode().encode("utf-16"),
    ],
)
def test_it_answers_400_for_what_is_not_json(caller, body):
    answer = caller.post(body)
    detail = answer.json()["detail"]
    assert detail.startswith("The body is not valid JSON: ")
    assert_problem(answer, problem(400, "parse_error", detail))
    assert not Subscription.objects.exists()


def test_it_names_half_of_a_surrogate_pair(caller):
    detail = r"The body is not valid JSON: \ud800 is half of a surrogate pair."
    assert_problem(caller.post(b'{"description": "\\ud800x"}'), problem(400, "parse_error", detail))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"description": [[{"a": ', b'["'])
def test_it_answers_400_for_nesting_without_end(caller, opening):
    answer = caller.post((opening * 1_000_000)[:1_000_000])
    assert_problem(answer, problem(400, "parse_error", answer.json()["detail"]))


def test_it_answers_400_for_deep_nesting_that_ends(caller):
    deep = b'{"description": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert_problem(caller.post(deep), problem(400, "parse_error", "The body is nested too deeply."))


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"true"])
def test_it_answers_400_for_json_that_is_no_object(caller, body):
    detail = "Give a JSON object."
    assert_problem(caller.post(body), invalid(("", "invalid", detail)))


def test_it_answers_400_for_null_and_for_nothing(caller):
    assert_problem(caller.post(b"null"), invalid(("", "null", "No data provided")))
    assert_problem(caller.post(b""), invalid(("/target_url", "required", "This field is required.")))


def test_it_takes_the_request_id_that_a_caller_gives(caller):
    given = "A-z_0.9" + "x" * 121
    assert_problem(caller.send("GET", "/nothing", Request_Id=given), NOT_FOUND | {"request_id": given})
    assert caller.send("GET", "/health", Request_Id=given).headers["Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "a\tb", "é", "a,b", "id\r\nSet-Cookie: x"])
def test_it_makes_a_request_id_instead_of_taking_a_harmful_one(caller, given):
    answer = caller.send("GET", "/nothing", Request_Id=given)
    made = answer.headers["Request-Id"]
    assert uuid.UUID(made).version == 4
    assert_problem(answer, NOT_FOUND | {"request_id": made})


def test_it_gives_each_call_an_id_of_its_own(caller):
    ids = {caller.send("GET", "/health", Request_Id="").headers["Request-Id"] for _ in range(3)}
    assert len(ids) == 3


def ingest_anything(caller, subscription):
    body = b'{"subscription_id": "%s", "event_type": "a", "body": 1}' % str(subscription.id).encode()
    return caller.send("POST", "/ingest", body, X_Webhook_Signature="sha256=0")


def test_it_says_nothing_of_its_insides_when_it_fails(caller, make_subscription, settings):
    # Only the operator can cause this.
    subscription = make_subscription()
    settings.SECRET_KEYS = []
    answer = ingest_anything(caller, subscription)
    assert_problem(answer, problem(500, "internal_error", "The service made a mistake. It has been logged."))


def test_it_asks_to_try_again_when_a_key_is_missing_that_the_operator_can_put_back(
    caller, make_subscription, settings
):
    subscription = make_subscription()
    settings.SECRET_KEYS = [base64.b64encode(bytes(32)).decode()]
    detail = "The service cannot store anything right now. Try again."
    assert_problem(ingest_anything(caller, subscription), problem(503, "unavailable", detail))


MISUNDERSTOOD = problem(400, "bad_request", "The request could not be understood.")
TOO_MANY_FIELDS = "&".join(["a"] * 1001)


# In development mode Django has a page for these, with all settings in it, which may take half a minute.
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("host", ["evil.example", "a b", "[::1", "testserver:x"])
def test_it_answers_400_for_a_host_that_is_not_its_own(caller, settings, host, debug):
    settings.DEBUG = debug
    assert_problem(caller.send("GET", "/health", Host=host), MISUNDERSTOOD)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("path", ["/docs", "/requests", "/admin/login/"])
def test_it_answers_400_for_more_fields_than_anybody_sends(caller, settings, path, debug):
    settings.DEBUG = debug
    assert_problem(caller.send("GET", f"{path}?{TOO_MANY_FIELDS}"), MISUNDERSTOOD)


@pytest.mark.parametrize("debug", [False, True])
def test_it_answers_400_for_a_form_with_more_fields_than_anybody_sends(caller, settings, debug):
    settings.DEBUG = debug
    cookie = f"{settings.CSRF_COOKIE_NAME}={'a' * 32}"
    form = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    assert_problem(caller.send("POST", "/admin/login/", TOO_MANY_FIELDS.encode(), **form), MISUNDERSTOOD)


PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)


# The calls of a run share the database of the test, and leave it as they found it.
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.text(max_size=10), st.text(max_size=10)).map(
            lambda data: repr(data).encode("utf-8", "replace")
        ),
    ),
    content_type=st.one_of(
        st.just("application/json"),
        st.text(PRINTABLE, max_size=30).map("application/json; {}".format),
        st.text(PRINTABLE, max_size=30).map("application/json; charset={}".format),
    ),
    query=st.text(PRINTABLE, max_size=20),
)
def test_it_never_fails_whatever_is_sent(caller, body, content_type, query):
    for method, path in (("POST", "/subscriptions"), ("POST", "/ingest"), ("GET", "/health")):
        answer = caller.send(method, f"{path}?{query}", body, Content_Type=content_type)
        assert answer.status in (200, 400, 401, 404, 415)


@pytest.mark.parametrize("query", ["", "?format=xml"])
def test_it_answers_json_whatever_the_caller_accepts(client, query):
    answer = client.get(f"/health{query}", headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
