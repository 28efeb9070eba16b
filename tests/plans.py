"""What PostgreSQL's plans say, as EXPLAIN (FORMAT JSON) has them."""

from collections.abc import Iterable, Iterator
from typing import Any

from subscriptions.lists import MAX_LIMIT

Node = dict[str, Any]


def nodes_of(plan: Node, *, with_subplans: bool = True) -> Iterator[Node]:
    """Yield the nodes of a plan from the outermost on, those of its subqueries' plans too unless told not to."""
    yield plan
    for child in plan.get("Plans", ()):
        if with_subplans or child.get("Parent Relationship") != "SubPlan":
            yield from nodes_of(child, with_subplans=with_subplans)


def indexes_of(nodes: Iterable[Node]) -> set[str]:
    """Return the indexes that a plan reads; it reads no whole table, and what it sorts is no more than a page."""
    nodes = list(nodes)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert all(node["Plan Rows"] <= MAX_LIMIT for node in nodes if "Sort" in node["Node Type"])
    return {node["Index Name"] for node in nodes if "Index Name" in node}
