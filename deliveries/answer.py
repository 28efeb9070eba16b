"""What is read of a receiver's answer: a bounded part of it, kept as it was sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# What is kept of an answer, in bytes; reading stops there.
MAX_RESPONSE_BYTES = 65_536
MAX_HEADER_BYTES = 32_768

# Lines of the head, with those of interim answers: each takes 170 bytes, here and in libcurl, however short it is.
MAX_HEADER_LINES = 256

# Pieces that a body may come in: each costs the loop as much as a large one would, and those of one byte
# would cost it forty times as much as the whole body in one.
MAX_PIECES = 4_096

# Headers of an answer that may hold credentials are not stored.
_UNSTORED_NAMES = {b"set-cookie", b"set-cookie2", b"authorization", b"www-authenticate", b"authentication-info"}
_UNSTORED_PREFIX = b"proxy-"

# To libcurl, any other number than that of the bytes given means: stop reading.
STOP = -1


@dataclass(slots=True)
class Answer:
    """The head and the body so far. `is_head_complete` says that the empty line after the headers came."""

    headers: list[bytes] = field(default_factory=list)
    header_bytes: int = 0
    header_lines: int = 0
    is_head_complete: bool = False
    body: bytearray = field(default_factory=bytearray)
    pieces: int = 0

    def clear(self) -> None:
        """Forget everything, and let the memory go."""
        self.headers = []
        self.header_bytes = 0
        self.header_lines = 0
        self.is_head_complete = False
        self.body = bytearray()
        self.pieces = 0

    @property
    def size(self) -> int:
        return self.header_bytes + len(self.body)

    def take_header(self, line: bytes) -> int | None:
        self.header_bytes += len(line)
        self.header_lines += 1
        if self.header_bytes > MAX_HEADER_BYTES or self.header_lines > MAX_HEADER_LINES:
            return STOP
        if line.startswith(b"HTTP/"):
            self.headers.clear()  # what came before was an interim answer (100, 103)
            self.is_head_complete = False
        elif line in (b"\r\n", b"\n"):
            self.is_head_complete = True
        self.headers.append(line)
        return None

    def take_body(self, chunk: bytes) -> int | None:
        room = MAX_RESPONSE_BYTES - len(self.body)
        self.body += chunk[:room]
        self.pieces += 1
        return STOP if len(chunk) > room or self.pieces > MAX_PIECES else None

    def stored_headers(self) -> str:
        """Return the head as text that PostgreSQL takes, without what may hold credentials."""
        head = b"".join(self.headers)
        lower = head.lower()
        # Quick, because most answers have none of these.
        if b"cookie" in lower or b"auth" in lower or b"proxy-" in lower:
            head = b"".join(_without_credentials(self.headers))
        return head.decode("latin-1").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()


def _without_credentials(lines: Iterable[bytes]) -> Iterator[bytes]:
    is_stored = True
    for line in lines:
        # A line that begins with a blank belongs to the header before it.
        if not line.startswith((b" ", b"\t")):
            name = line.partition(b":")[0].strip().lower()
            is_stored = name not in _UNSTORED_NAMES and not name.startswith(_UNSTORED_PREFIX)
        if is_stored:
            yield line
