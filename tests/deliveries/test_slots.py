"""How a worker's slots are shared among customers: the arithmetic."""

from uuid import UUID

import pytest

from deliveries.slots import Slots


def slots_with(total, **held):
    slots = Slots(total)
    for customer, count in held.items():
        for _ in range(count):
            slots.take(customer)
    return slots


@pytest.mark.parametrize(
    ("total", "held", "allowance"),
    [
        (100, {}, 50),  # half of all, when nobody has any
        (100, {"acme": 50}, 0),
        (100, {"acme": 40}, 10),  # 50 then, and 50 free
        (100, {"other": 50}, 25),  # half of what the other one leaves
        (100, {"acme": 33, "other": 33}, 1),  # a third each, and a third free
        (100, {"other": 99}, 1),  # the last one is for who has none
        (100, {"acme": 1, "other": 98}, 0),
        (100, {"other": 100}, 0),
        (1, {}, 1),
    ],
)
def test_a_customer_may_have_as_many_calls_in_flight_as_slots_are_free(total, held, allowance):
    slots = slots_with(total, **held)
    assert slots.allowance("acme") == allowance
    assert ("acme" in slots.satisfied) == (allowance == 0 and "acme" in held)


def test_what_is_given_back_is_free_again():
    slots = slots_with(10, acme=5)
    assert slots.satisfied == ["acme"]
    slots.give_back("acme")
    assert (slots.free, slots.satisfied, slots.allowance("acme")) == (6, [], 1)


def test_a_claim_is_shared_equally_among_subscriptions():
    customers = {UUID(int=number): f"customer {number}" for number in range(3)}
    assert slots_with(1000).share_out(100, customers) == dict.fromkeys(customers, 33)


def test_the_subscriptions_of_one_tenant_get_no_more_than_it_may_have_together():
    a, b, c, d = (UUID(int=number) for number in range(4))
    slots = slots_with(100, acme=41)
    assert slots.share_out(100, {a: "acme", b: "acme", c: "other", d: "third"}) == {a: 4, b: 4, c: 25, d: 25}


def test_chance_picks_the_subscriptions_of_a_tenant_that_may_have_fewer_calls_than_it_has_subscriptions():
    customers = {UUID(int=number): "acme" for number in range(10)}
    slots = slots_with(10, acme=2)
    picked = set()
    for _ in range(500):
        shares = slots.share_out(8, customers)
        assert list(shares.values()) == [1, 1, 1]
        picked |= set(shares)
    assert picked == set(customers)
