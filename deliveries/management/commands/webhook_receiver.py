"""A receiver to try the service with: prints what it gets, and answers as told."""

import errno
import json
import socket
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import chain, repeat
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from subscriptions import signing
from subscriptions.visible import visible

TOLERANCE_SECONDS = 300
LONGEST_DELAY_SECONDS = 3600

# What stands in the way of a port; anything else is the address's doing.
PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES)


def statuses(text: str) -> list[int]:
    try:
        codes = [int(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentTypeError("write status codes, such as 500,500,200") from None
    if not all(200 <= code <= 599 for code in codes):
        raise ArgumentTypeError("a status code is from 200 to 599")
    return codes


def address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ArgumentTypeError("write an IP address, such as 127.0.0.1 or ::1") from None


def port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) < 65536):
        raise ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError("write a number of seconds") from None
    if not 0 <= number <= LONGEST_DELAY_SECONDS:
        raise ArgumentTypeError(f"a delay is from 0 to {LONGEST_DELAY_SECONDS} seconds")
    return number


def signing_key(secret: str) -> bytes:
    if not secret:
        raise ArgumentTypeError("the secret is empty")
    try:
        return signing.key_of(secret)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


class Receiver(ThreadingHTTPServer):
    """An HTTP server that answers with each status in turn, then with the last one for ever."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int],
        *,
        key: bytes | None,
        statuses: Sequence[int],
        delay: float,
        hang: bool,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, Handler)
        self.key = key
        self.delay = delay
        self.hang = hang
        self.output = threading.Lock()
        self._statuses = chain(statuses, repeat(statuses[-1]))

    def next_status(self) -> int:
        with self.output:
            return next(self._statuses)


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = self.server.next_status()
        self._print(body, "no answer" if self.server.hang else str(status))
        if self.server.hang:
            threading.Event().wait()
        time.sleep(self.server.delay)
        answer = b"received\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _print(self, body: bytes, answer: str) -> None:
        lines = [f"{time.strftime('%H:%M:%S')} {self.command} {self.path}  -> {answer}"]
        lines += [f"  {name}: {value}" for name, value in self.headers.items()]
        lines += [f"  signatures: {self._judge_signatures(body)}", "", _pretty(body), ""]
        with self.server.output:
            # What a sender wrote is not to move the cursor, nor to be something that cannot be printed.
            print(visible("\n".join(lines)), flush=True)

    def _judge_signatures(self, body: bytes) -> str:
        key = self.server.key
        if key is None:
            return "not checked (give --secret)"
        findings = []
        if not signing.verify_body([key], body, self.headers.get("X-Webhook-Signature", "")):
            findings.append("X-Webhook-Signature is WRONG")
        timestamp = self.headers.get("webhook-timestamp", "")
        expected = signing.sign_standard(
            [key],
            message_id=self.headers.get("webhook-id", ""),
            timestamp=int(timestamp) if timestamp.isdecimal() else 0,
            body=body,
        )
        if expected not in self.headers.get("webhook-signature", "").split(" "):
            findings.append("webhook-signature is WRONG")
        elif abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
            findings.append("webhook-timestamp is more than 5 minutes off")
        return "; ".join(findings) or "both valid"

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing more: the call has been printed."""


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return repr(body)


class Command(BaseCommand):
    help = "Receive webhooks on loopback: print each call, check its signatures, answer as told."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=port, default=9000, help="Port to listen on; default %(default)s.")
        parser.add_argument(
            "--host", type=address, default="127.0.0.1", help="Address to listen on; default %(default)s."
        )
        parser.add_argument(
            "--secret", type=signing_key, help="The subscription's secret, to check signatures with."
        )
        parser.add_argument(
            "--status",
            type=statuses,
            default=[200],
            help="Statuses to answer, such as 500,200: the last one stays.",
        )
        parser.add_argument("--delay", type=seconds, default=0.0, help="Seconds to wait before answering.")
        parser.add_argument("--hang", action="store_true", help="Never answer.")

    def handle(self, *args: Any, **options: Any) -> None:
        host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        try:
            receiver = Receiver(
                (options["host"], options["port"]),
                key=options["secret"],
                statuses=options["status"],
                delay=options["delay"],
                hang=options["hang"],
            )
        except OSError as error:
            wrong = "port with --port" if error.errno in PORT_ERRORS else "address with --host"
            told = f"Cannot listen on {host}:{options['port']} ({error.strerror}). Choose another {wrong}."
            raise CommandError(told) from None
        self.stdout.write(f"Receiving on http://{host}:{receiver.server_port}/ (Ctrl-C ends it)")
        self.stdout.flush()
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            receiver.server_close()
