"""GET /subscriptions: pages, filters, refusals."""

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from tests.expected import REQUEST_ID, invalid, rfc3339, subscription_body

URL = "https://example.com/hook"


@pytest.fixture
def get(client_with_key):
    """Read a page; returns its body."""

    def get(path="/subscriptions", **parameters):
        return client_with_key.get(path, parameters, headers={"Request-Id": REQUEST_ID}).json()

    return get


def ids(page):
    return [each["id"] for each in page["results"]]


def follow(get, link):
    return get(urlsplit(link).path + "?" + urlsplit(link).query)


def test_it_lists_subscriptions_newest_first_as_each_is_shown(get, make_subscription):
    first = make_subscription(URL)
    until = timezone.now() + timedelta(hours=1)
    second = make_subscription(
        URL, tenant="acme", status="paused", status_reason="as asked", previous_secret_until=until
    )
    assert get() == {
        "next": None,
        "previous": None,
        "results": [
            subscription_body(
                second,
                tenant="acme",
                status="paused",
                status_reason="as asked",
                previous_secret_until=rfc3339(until),
            ),
            subscription_body(first),
        ],
    }


def test_it_lists_nothing_where_there_is_nothing(get, db):
    assert get() == {"next": None, "previous": None, "results": []}


def test_it_pages_to_the_end_and_back(get, make_subscription):
    made = [str(make_subscription().id) for _ in range(5)][::-1]
    first = get(limit=2)
    second = follow(get, first["next"])
    third = follow(get, second["next"])
    assert [ids(first), ids(second), ids(third)] == [made[:2], made[2:4], made[4:]]
    assert (first["previous"], third["next"]) == (None, None)
    assert ids(follow(get, third["previous"])) == made[2:4]


def test_a_limit_is_the_number_that_it_was_taken_for(get, make_subscription):
    made = [make_subscription() for _ in range(3)]
    assert [len(get(limit=limit)["results"]) for limit in ("2", "2.0", " 2", "250")] == [2, 2, 2, len(made)]


def test_a_page_ends_early_before_it_is_too_large(get, make_subscription):
    pem = "x" * 65_536
    made = [str(make_subscription(ca_certificates=pem).id) for _ in range(130)][::-1]
    first = get(limit=250)
    second, third = follow(get, first["next"]), follow(get, follow(get, first["next"])["next"])
    assert [ids(first), ids(second), ids(third)] == [made[:60], made[60:120], made[120:]]
    assert (first["previous"], third["next"]) == (None, None)
    back = follow(get, third["previous"])
    assert ids(back) == made[60:120]
    assert ids(follow(get, back["previous"])) == made[:60]
    assert ids(follow(get, back["next"])) == made[120:]


def test_it_leaves_out_what_is_deleted(get, make_subscription):
    kept, deleted = make_subscription(), make_subscription()
    deleted.remove()
    assert ids(get()) == [str(kept.id)]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcd"),
        ({"tenant": "acme"}, "a"),
        ({"tenant": ""}, "bcd"),
        ({"tenant": "acm"}, ""),
        ({"status": "paused"}, "b"),
        ({"status": "active"}, "acd"),
        ({"event_type": "invoice.paid"}, "acd"),
        ({"event_type": "invoice.item.added"}, "cd"),
        ({"event_type": "invoice"}, "c"),
        ({"event_type": "order.placed"}, "bc"),
        ({"search": "LEDGER"}, "b"),
        ({"search": "one.example.com"}, "a"),
        ({"search": "%"}, ""),
        ({"search": "  "}, ""),
        ({"search": "_"}, "d"),
        ({"status": "active", "event_type": "order.placed"}, "c"),
        ({"tenant": "acme", "search": "ledger"}, ""),
    ],
)
def test_it_narrows_the_list(get, make_subscription, filters, found):
    names = {
        str(subscription.id): name
        for name, subscription in {
            "a": make_subscription("https://one.example.com/", tenant="acme", event_types=["invoice.paid"]),
            "b": make_subscription(
                "https://two.example.com/", status="paused", description="the ledger", event_types=["order.*"]
            ),
            "c": make_subscription("https://three.example.com/"),
            "d": make_subscription("https://four.example.com/a_b", event_types=["x", "invoice.*"]),
        }.items()
    }
    assert sorted(names[each] for each in ids(get(**filters))) == list(found)


@pytest.mark.parametrize(
    ("filters", "pointer", "code", "detail"),
    [
        ({"colour": "red"}, "/colour", "unknown", "This parameter is not known."),
        ({"status": "resting"}, "/status", "invalid_choice", '"resting" is not a valid choice.'),
        ({"status": ""}, "/status", "invalid_choice", '"" is not a valid choice.'),
        ({"status": ["active", "paused"]}, "/status", "repeated", "Give this parameter once."),
        (
            {"event_type": "invoice.*"},
            "/event_type",
            "invalid_event_type",
            "An event type has letters, digits, _ and -, in segments joined by dots.",
        ),
        ({"search": "x" * 101}, "/search", "max_length", "Ensure this field has no more than 100 characters."),
        ({"limit": "251"}, "/limit", "max_value", "Ensure this value is less than or equal to 250."),
        ({"cursor": "nonsense"}, "/cursor", "invalid_cursor", "This cursor is not one of ours."),
    ],
)
def test_it_refuses_filters_that_make_no_sense(get, db, filters, pointer, code, detail):
    assert get(**filters) == invalid((pointer, code, detail))


def test_it_shows_a_tenant_its_own_alone(make_client, make_subscription):
    mine, other = make_subscription(tenant="acme"), make_subscription(tenant="globex")
    client = make_client(tenant="acme")
    assert ids(client.get("/subscriptions").json()) == [str(mine.id)]
    assert ids(client.get("/subscriptions", {"tenant": "globex"}).json()) == []
    assert ids(client.get("/subscriptions", {"search": str(other.target_url)}).json()) == [str(mine.id)]


@pytest.mark.parametrize("scope", ["publish", "manage"])
def test_it_wants_a_key_that_may_read(make_client, scope):
    assert make_client(scope).get("/subscriptions").status_code == 403


def test_it_reads_any_number_in_as_many_queries(client_with_key, make_subscription, django_assert_num_queries):
    for number in range(20):
        make_subscription(tenant=str(number), event_types=["a.*"])
    # The key, its last use, a transaction (two), its time limit, the page.
    with django_assert_num_queries(6):
        client_with_key.get("/subscriptions")
    with django_assert_num_queries(6):
        client_with_key.get("/subscriptions", {"event_type": "a.b", "search": "127", "status": "active"})


def test_it_takes_a_cursor_of_another_list_for_a_place_and_no_more(make_client, make_subscription):
    make_subscription(tenant="globex")
    mine = make_subscription(tenant="acme")
    make_subscription(tenant="globex")
    make_subscription(tenant="globex")
    theirs = make_client(tenant="globex").get("/subscriptions", {"limit": 2}).json()["next"]
    page = make_client(tenant="acme").get(f"{urlsplit(theirs).path}?{urlsplit(theirs).query}").json()
    assert ids(page) in ([], [str(mine.id)])
    assert all(each["tenant"] == "acme" for each in page["results"])
