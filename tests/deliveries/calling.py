"""Make calls with a transport of the test's own, and see what comes of them."""

from pathlib import Path

from deliveries.outcome import Outcome
from deliveries.resolver import Resolver
from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks
from tests.deliveries.hostile import Listener

ROOT = Path(__file__).parents[2]

# The limit of calls that are not meant to run out of time.
LONG_SECONDS = 10.0
# How long a receiver, or a resolver, that says nothing is waited for.
SILENT_SECONDS = 3.0

CALL_FROM_A_FRESH_PROCESS = """
import sys
from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks
transport = Transport(user_agent="tests", allowed_networks=parse_networks(["127.0.0.0/8"]))
transport.send(Call(tag=None, url=sys.argv[1], headers=[], body=b"{}", timeout_seconds=10))
while transport.in_flight:
    for finished in transport.wait(0.1):
        print(finished.outcome.error)
"""


def make_transport(
    networks: str = "127.0.0.0/8 ::1/128", ca_bundle: Path | None = None, resolver: Resolver | None = None
) -> Transport:
    return Transport(
        resolver=resolver,
        user_agent="tests",
        allowed_networks=parse_networks(networks.split()),
        ca_bundle=None if ca_bundle is None else str(ca_bundle),
    )


def a_call(url: str, *, tag: str = "", body: bytes = b'{"n": 1}', seconds: float = LONG_SECONDS) -> Call:
    headers = ["Content-Type: application/json", f"X-Tag: {tag}"]
    return Call(tag=tag, url=url, headers=headers, body=body, timeout_seconds=seconds)


def outcomes(transport: Transport, *calls: Call) -> dict[str, Outcome]:
    """Make the calls side by side and return what came of each, by its tag."""
    for call in calls:
        transport.send(call)
    finished = []
    while transport.in_flight:
        finished += transport.wait(0.1)
    return {one.call.tag: one.outcome for one in finished}


def outcome(transport: Transport, url: str, *, body: bytes = b"{}", seconds: float = LONG_SECONDS) -> Outcome:
    return outcomes(transport, a_call(url, body=body, seconds=seconds))[""]


def url_of(listener: Listener, host: str = "127.0.0.1", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{listener.port}/hook"
