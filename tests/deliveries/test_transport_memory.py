"""What many calls take and leave behind: memory, handles and descriptors."""

import contextlib
import gc
import itertools
import subprocess
import sys

import psutil
import pycurl
import pytest

from deliveries.transport import Call, Transport
from tests.deliveries import hostile
from tests.deliveries.calling import ROOT, make_transport, outcome, url_of
from tests.deliveries.hostile import Connection, ends_the_second_request, listening, reads_and


def descriptors() -> int:
    return int(psutil.Process().num_fds())


def count_handles() -> int:
    gc.collect()
    return sum(type(thing) is pycurl.Curl for thing in gc.get_objects())


def test_refused_calls_leave_no_handle_behind(transport: Transport) -> None:
    bad = Call(tag="", url="http://127.0.0.1/", headers=["X-A: \n"], body=b"", timeout_seconds=1)
    before = count_handles(), descriptors()
    for _ in range(100):
        with pytest.raises(ValueError, match="call"):
            transport.send(bad)
    # Fewer descriptors: what tests before this one left behind was closed meanwhile.
    assert count_handles() == before[0]
    assert descriptors() <= before[1]


HANGING_CALLS = """
import resource, socket
from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks

def rss_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before = rss_mb()
transport = Transport(user_agent="tests", allowed_networks=parse_networks(["127.0.0.0/8"]))
# The kernel takes the connections; nobody reads them.
servers = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(20)]
for number in range(2_000):
    url = f"http://127.0.0.1:{servers[number % 20].getsockname()[1]}/"
    body = number.to_bytes(4) * 500
    transport.send(Call(tag=None, url=url, headers=["X-A: b"], body=body, timeout_seconds=4))
hanging = 0
errors = set()
while transport.in_flight:
    errors |= {str(finished.outcome.error) for finished in transport.wait(0.5)}
    hanging = max(hanging, rss_mb())
print(*errors, hanging - before < 75, rss_mb() - before < 75)
"""


def test_2000_hanging_calls_take_little_memory() -> None:
    process = subprocess.run(
        [sys.executable, "-c", HANGING_CALLS], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (process.stdout, process.stderr) == ("timeout True True\n", "")


HANGING_HANDSHAKES = """
import resource, socket
from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks

def rss_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

transport = Transport(user_agent="tests", allowed_networks=parse_networks(["127.0.0.0/8"]))
servers = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(5)]
before = rss_mb()
for number in range(1_000):
    url = f"https://127.0.0.1:{servers[number % 5].getsockname()[1]}/"
    transport.send(Call(tag=None, url=url, headers=[], body=b"{}", timeout_seconds=6))
errors, most = set(), 0
while transport.in_flight:
    errors |= {str(finished.outcome.error) for finished in transport.wait(0.5)}
    most = max(most, rss_mb())
print(*errors, most - before < 300)
"""


def test_1000_handshakes_that_hang_share_one_copy_of_the_authorities() -> None:
    """Parsed for each connection they would take some MB each."""
    process = subprocess.run(
        [sys.executable, "-c", HANGING_HANDSHAKES], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (process.stdout, process.stderr) == ("timeout True\n", "")


def test_no_descriptor_is_left_behind() -> None:
    before = descriptors()
    with (
        contextlib.closing(make_transport()) as transport,
        listening(ends_the_second_request(reads_and(Connection.reset))) as unsteady,
        listening(hostile.answers_and_closes(hostile.OK)) as closing,
    ):
        for listener in itertools.islice(itertools.cycle([unsteady, closing]), 100):
            outcome(transport, url_of(listener))
    gc.collect()
    assert descriptors() <= before
