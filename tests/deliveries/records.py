"""TLS 1.3 records of a server's own making: what no TLS library would send."""

import hmac
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE = 22
DATA = 23

# A session ticket (RFC 8446, 4.6.1) with a lifetime, a nonce and a ticket.
TICKET = bytes.fromhex("04 00000f 00001c20 00000001 01 6e 0001 74 0000")


class Records:
    """What a server says after the handshake, encrypted with its keys (RFC 8446, 5.2 and 7)."""

    def __init__(self, context: ssl.SSLContext, key_log: Path) -> None:
        """Let the servers of `context` speak TLS 1.3 and note their keys in a file."""
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # each of the context's own would be a record that is not counted here
        context.keylog_filename = str(key_log)
        self._key_log = key_log

    def begin(self) -> None:
        """Take the keys of the newest connection, all of whose records are to come from here."""
        lines = self._key_log.read_text().splitlines()
        line = next(line for line in reversed(lines) if line.startswith("SERVER_TRAFFIC_SECRET_0"))
        secret = bytes.fromhex(line.split()[2])
        self._key = AESGCM(_expand(secret, "key", 32))
        self._iv = int.from_bytes(_expand(secret, "iv", 12), "big")
        self._count = 0

    def record(self, content: bytes, kind: int) -> bytes:
        plain = content + bytes([kind])
        head = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._count).to_bytes(12, "big")
        self._count += 1
        return head + self._key.encrypt(nonce, plain, head)


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label of TLS_AES_256_GCM_SHA384, for at most 48 bytes."""
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", "sha384")[:length]
