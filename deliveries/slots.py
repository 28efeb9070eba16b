"""Whose calls a process has in flight, and how many more each customer may have. Pure.

A customer is a tenant, or a subscription that has none. None may have more calls in flight
than the process has slots free: alone it gets half of them, beside another a third. So there
is always room for a newcomer, however many receivers of somebody else hang.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from uuid import UUID


class Slots:
    """The slots of one process: a worker's for deliveries, or those of web for test calls."""

    def __init__(self, free: int, held: Mapping[str, int] | None = None) -> None:
        self.free = free
        self._held = Counter(held)

    def copy(self) -> "Slots":
        return Slots(self.free, self._held)

    def take(self, customer: str) -> None:
        self.free -= 1
        self._held[customer] += 1

    def give_back(self, customer: str) -> None:
        self.free += 1
        self._held[customer] -= 1
        if not self._held[customer]:
            del self._held[customer]

    def allowance(self, customer: str) -> int:
        """Return how many more calls it may have, which then leaves as many slots free as it has calls."""
        return max(0, (self.free - self._held[customer] + 1) // 2)

    @property
    def satisfied(self) -> list[str]:
        """The customers that may have no more for the moment."""
        return [customer for customer, held in self._held.items() if held >= self.free]

    def share_out(self, limit: int, customers: Mapping[UUID, str]) -> dict[UUID, int]:
        """Divide a claim of `limit` equally among subscriptions, given with whose they are.

        Those of one customer get no more than it may have together. Where that is less than
        one for each, chance picks, so that none is always the last.
        """
        by_customer = defaultdict(list)
        for subscription_id, customer in customers.items():
            by_customer[customer].append(subscription_id)
        # Rounded down, so that the whole never has to be cut: that would favour the oldest.
        share = max(1, limit // max(1, len(customers)))
        shares: dict[UUID, int] = {}
        for customer, ids in by_customer.items():
            allowance = self.allowance(customer)
            picked = ids
            if len(ids) > allowance:
                picked = random.sample(ids, allowance)  # nosec B311
            shares |= {one: min(share, allowance // len(picked)) for one in picked}
        return shares
