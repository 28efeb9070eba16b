"""No page of the admin ends in a 500, whatever stands in the address or in a form."""

import os
import secrets
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from deliveries.models import Event
from tests.security.test_input import VALUES

pytestmark = pytest.mark.django_db(transaction=True)

fuzz = limits(
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXTS = [str(value) for value in VALUES if isinstance(value, str | int | float) and len(repr(value)) < 4000]
PARAMETERS = [
    *("q", "p", "o", "e", "all", "_to_field", "_popup", "_changelist_filters", "next", "within", "error", "id"),
    *(
        "status",
        "status__exact",
        "id__exact",
        "subscription__id__exact",
        "tenant",
        "event_type",
        "pk__in",
        "x__y__z",
    ),
    *("created_at__gte", "created_at__year", "ordered__exact", "scopes", "term", "field_name", "app_label"),
]


@pytest.fixture
def operator() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def rows(make_subscription, make_request) -> list[str]:
    """One row of what the pages are about, to be asked for."""
    request = make_request(make_subscription(), payload=b"[" * 400 + b"9" * 5000 + b"]" * 400)
    event = Event.objects.create(event_type="a", payload=b'{"a\\u0000": 1e999, "a\\u0000": "\\ud83d"}')
    return [str(request.id), str(request.subscription_id), str(event.id)]


def paths(ids: list[str]) -> list[str]:
    """Return the path of every page of every model, for rows that are and that are none."""
    ids = [*ids, "1", "x", "%00", "%ff", "_00", "9" * 30, "..", "é"]
    found = ["/admin/", "/admin/jsi18n/", "/admin/autocomplete/", "/admin/password_change/", "/admin/logout/"]
    for model in admin.site._registry:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        found += [base, f"{base}add/"]
        found += [f"{base}{row_id}/{page}" for row_id in ids for page in ("", "change/", "history/", "delete/")]
        found += [f"{base}{row_id}/payload" for row_id in ids]
    return found


HOSTILE_JSON = {
    "a lone surrogate": '{"a": "\\ud800"}',
    "a name with a lone surrogate": '{"\\ud800": 1}',
    "not a number": '{"a": NaN}',
    "a number that is too large": '{"a": 1e999}',
    "nested without end": "[" * 100_000,
    "nested and closed": "[" * 5_000 + "]" * 5_000,
    "a name twice": '{"a": 1, "a": 2}',
    "a NUL": '{"a": "\\u0000"}',
}


@pytest.mark.parametrize("text", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
@pytest.mark.parametrize(
    ("page", "name"),
    [
        *(
            ("subscriptions/subscription", name)
            for name in ("metadata", "filter", "headers", "secret_headers", "auth")
        ),
        *(("subscriptions/eventtype", name) for name in ("schema", "example")),
    ],
)
def test_json_that_the_api_refuses_is_refused_in_forms_and_shown_again(operator, page, name, text):
    answer = operator.post(f"/admin/{page}/add/", {name: text})
    assert answer.status_code == 200
    assert name in answer.context["adminform"].form.errors


pairs = st.lists(
    st.tuples(st.sampled_from(PARAMETERS), st.one_of(st.sampled_from(TEXTS), st.text(max_size=8))), max_size=3
)


@fuzz
@given(data=st.data())
def test_no_page_is_answered_with_500(operator, rows, data):
    path = data.draw(st.sampled_from(paths(rows)))
    query = urlencode(data.draw(pairs), errors="surrogatepass")
    assert operator.get(f"{path}?{query}").status_code < 500


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=lambda page: page.opts.model_name)
def test_a_list_compares_with_nothing_that_it_does_not_offer_to(operator, rows, page):
    path = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
    for field in page.opts.get_fields():
        query = urlencode({f"{field.name}__regex": "(a+"})
        assert operator.get(f"{path}?{query}").status_code == 400, query


def test_what_is_refused_shows_no_stack_in_development_mode(operator, settings):
    settings.DEBUG = True
    path = "/admin/deliveries/event/"
    fields = {"action": "cancel", "_selected_action": ["x"]}
    refusals = [operator.get(f"{path}?payload__regex=a"), operator.post("/admin/deliveries/operation/", fields)]
    assert [answer.status_code for answer in refusals] == [400, 400]
    assert {answer["Content-Type"] for answer in refusals} == {"application/problem+json"}


def test_a_comparison_that_is_refused_leaves_no_stack_in_the_log(operator, caplog):
    for query in ("password__startswith=a", "_to_field=password"):
        assert operator.get(f"/admin/auth/user/?{query}").status_code == 400
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=lambda page: page.opts.model_name)
def test_no_filter_of_a_list_fails(operator, rows, page):
    path = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
    names = [item if isinstance(item, str) else item.parameter_name for item in page.list_filter]
    filters = {name + kind for name in names for kind in ("", "__exact", "__id__exact", "__isnull")}
    for name in filters | page.linked_lookups:
        for text in ("\0", "-1", "9" * 400):
            assert operator.get(f"{path}?{urlencode({name: text})}").status_code < 500, (name, text)


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=lambda page: page.opts.model_name)
def test_rows_are_asked_for_by_their_key_alone(operator, rows, page):
    path = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
    for field in page.opts.get_fields(include_hidden=True):
        if field is not page.opts.pk:
            for url in (path, f"{path}{rows[0]}/change/"):
                query = urlencode({"_to_field": field.name})
                assert operator.get(f"{url}?{query}").status_code == 400, (url, query)
    assert operator.get(f"{path}?{urlencode({'_to_field': page.opts.pk.name})}").status_code == 200


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=lambda page: page.opts.model_name)
def test_there_is_no_row_of_a_very_long_id(operator, settings, page):
    settings.DEBUG = True  # Django fails there if a message does not fit
    row_id = secrets.token_hex(2_000)
    assert operator.get(f"/admin/{page.opts.app_label}/{page.opts.model_name}/{row_id}/change/").status_code == 404


def test_an_empty_name_of_a_field_is_none(operator, rows):
    for model in admin.site._registry:
        for row_id in rows:
            path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{row_id}/change/?_to_field="
            assert operator.get(path).status_code in (200, 302, 403), path


@pytest.mark.parametrize("page", ["", "change/", "history/", "delete/", "payload"])
def test_every_page_of_every_row_is_shown_or_refused(operator, rows, page):
    for model in admin.site._registry:
        for row_id in rows:
            path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{row_id}/{page}"
            assert operator.get(path).status_code in (200, 301, 302, 403, 404), path


FIELDS = [
    *("target_url", "description", "tenant", "event_types", "retry_schedule", "timeout_seconds", "max_in_flight"),
    *("rate_limit", "ordered", "metadata", "filter", "headers", "ca_certificates", "name", "scopes", "username"),
    *(
        "password1",
        "password2",
        "groups",
        "is_active",
        "action",
        "_selected_action",
        "select_across",
        "index",
        "post",
    ),
    *("schema", "examples", "validation", "expires_at_0", "expires_at_1", "secret", "reason", "code", "status"),
]
forms = st.dictionaries(
    st.sampled_from(FIELDS), st.one_of(st.sampled_from(TEXTS), st.text(max_size=8)), max_size=6
)


@fuzz
@given(data=st.data())
def test_no_form_is_answered_with_500(operator, rows, data):
    path = data.draw(st.sampled_from([path for path in paths(rows) if "logout" not in path]))
    form = data.draw(forms) | data.draw(st.sampled_from([{}, {"action": "pause"}, {"action": "replay"}]))
    body = urlencode(form, errors="surrogatepass")
    answer = operator.post(path, body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code < 500


def test_no_page_completes_what_somebody_types(operator):
    place = "/admin/autocomplete/?app_label=deliveries&model_name=webhookrequest&field_name=subscription&term="
    assert [operator.get(place + term).status_code for term in ("a", "%00")] == [404, 404]


@pytest.mark.parametrize("chosen", ["", "x", "\0", "1", "9" * 400])
def test_an_action_on_what_is_no_id_is_refused(operator, rows, chosen):
    for model, page in admin.site._registry.items():
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for action in page.actions or ():
            fields = {"action": action, "_selected_action": [rows[0], chosen], "confirmed": "yes"}
            assert operator.post(path, fields).status_code == 400, (path, action)


@pytest.mark.parametrize("page", admin.site._registry.values(), ids=lambda page: page.opts.model_name)
def test_a_search_for_very_many_words_is_refused(operator, rows, page):
    path = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
    with CaptureQueriesContext(connection) as captured:
        answer = operator.get(path, {"q": " ".join(f"a{number}" for number in range(5_000))})
    assert answer.status_code == 200
    assert list(answer.context["cl"].result_list) == []
    assert not [query["sql"] for query in captured if " LIKE " in query["sql"]]
