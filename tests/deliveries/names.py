"""A name server of the test's own, on loopback, and a look-up that really asks it."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from dnslib import AAAA, CNAME, QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

PATIENCE_SECONDS = 10
SILENT = ("recv", "send", "request", "reply", "truncated", "error", "data")
MAX_CNAMES = 8


@dataclass
class NameServer(BaseResolver):  # type: ignore[misc]
    """Answers from `zone`: a name has addresses and other names (CNAME), or says anew each time what it has."""

    zone: dict[str, list[str] | Callable[[], list[str]]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        entry = self.zone.get(name, [])
        reply = request.reply()
        for text in entry() if callable(entry) else entry:
            record = _record(text)
            if QTYPE[record.rtype] in (kind, "CNAME"):
                reply.add_answer(RR(request.q.qname, record.rtype, rdata=record.rdata, ttl=0))
        with self._changed:
            self.asked.append((name, kind))
            self._changed.notify_all()
        return reply

    def look_up(self, host: str) -> list[str]:
        """Ask for the addresses of a name over UDP, as deliveries/resolver.py asks the C library."""
        found = [address for kind in ("AAAA", "A") for address in self._ask(host, kind)]
        if not found:
            raise OSError("no such name")
        return found

    def _ask(self, host: str, kind: str) -> Iterator[str]:
        name = host.rstrip(".")
        for _ in range(MAX_CNAMES):
            question = DNSRecord.question(name, kind)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE_SECONDS)
                client.sendto(question.pack(), ("127.0.0.1", self.port))
                answer = DNSRecord.parse(client.recv(4096))
            assert answer.header.id == question.header.id
            yield from (
                str(ip_address(bytes(record.rdata.data))) for record in answer.rr if QTYPE[record.rtype] == kind
            )
            names = [str(record.rdata).rstrip(".") for record in answer.rr if QTYPE[record.rtype] == "CNAME"]
            if not names:
                return
            name = names[0]


def _record(text: str) -> RR:
    try:
        address = ip_address(text)
    except ValueError:
        return RR("x", QTYPE.CNAME, rdata=CNAME(text))
    data = tuple(address.packed)
    return RR("x", QTYPE.A, rdata=A(data)) if address.version == 4 else RR("x", QTYPE.AAAA, rdata=AAAA(data))


@contextlib.contextmanager
def name_server(**zone: list[str] | Callable[[], list[str]]) -> Iterator[NameServer]:
    """Run a name server for names under `example`: `a=[...]` is what a.example has."""
    names = NameServer(zone={f"{name}.example": entry for name, entry in zone.items()})
    server = DNSServer(names, address="127.0.0.1", port=0, logger=DNSLogger("-" + ",-".join(SILENT)))
    names.port = server.server.server_address[1]
    server.start_thread()
    try:
        yield names
    finally:
        server.stop()
        server.server.server_close()
        server.thread.join()
