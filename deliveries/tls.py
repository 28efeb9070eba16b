"""What differs between the TLS of one subscription's calls and another's, and its failures in words."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificates:
    """Certificates in PEM: the authorities to trust in place of the usual ones, and our own with its key."""

    authorities: str | None = None
    certificate: str | None = None
    private_key: str | None = field(default=None, repr=False)


_OWN_HINT = "The subscription's client certificate or its key cannot be used. Give them again."
_OLD_HINT = "The receiver knows no TLS version of today: 1.2 or 1.3 is needed."
_CLIENT_HINT = """
The receiver did not accept the client certificate. Check that it is valid, and issued by an authority that the
receiver trusts.
"""
_AUTHORITY_HINT = """
The receiver's certificate comes from an authority that is not trusted. Give that authority's certificate in
ca_certificates.
"""
_SELF_SIGNED_HINT = """
The receiver's certificate is self-signed. Use one from a public authority, or give this one in ca_certificates.
"""
_ISSUER_HINT = """
The issuer of the receiver's certificate is not known. Have the receiver send its intermediate certificates too, or
give the certificate of a private authority in ca_certificates.
"""
_BROKEN_OFF_HINT = """
The receiver broke the TLS handshake off. It may ask for a client certificate, or know no TLS version or key
exchange (ECDHE) of today.
"""

# A refusal that comes after the handshake, as with TLS 1.3, may get lost with its connection.
CLOSED_AFTER_HANDSHAKE_HINT = (
    "The connection was closed right after the TLS handshake. The receiver may ask for a client certificate: "
    "auth of type mtls."
)

SLOW_HINT = (
    "The receiver's certificates take too long to check. Use a short chain, of EC keys or RSA keys of at most "
    "4,096 bits."
)

# What libcurl and OpenSSL say, and what its owner may do about it. The first that fits counts.
_HINTS = {
    "result: certificate has expired": "The receiver's certificate has expired. Renew it.",
    "result: certificate is not yet valid": "The receiver's certificate is not valid yet. Check its dates.",
    "result: self-signed certificate in certificate chain": _AUTHORITY_HINT,
    "result: self-signed certificate": _SELF_SIGNED_HINT,
    "result: unable to": _ISSUER_HINT,
    "subject name matches": "The receiver's certificate is for another host name.",
    "alert certificate required": "The receiver asks for a client certificate: auth of type mtls.",
    "alert handshake failure": _BROKEN_OFF_HINT,
    "alert protocol version": _OLD_HINT,
    "unsupported protocol": _OLD_HINT,
    "alert unknown ca": _CLIENT_HINT,
    "alert bad certificate": _CLIENT_HINT,
    "alert certificate": _CLIENT_HINT,
    "alert unsupported certificate": _CLIENT_HINT,
    "wrong version number": "There is no TLS at this port. Check the port, or whether the URL begins with http.",
    "client certificate": _OWN_HINT,
    "private key file": _OWN_HINT,
    "trust anchors": "The subscription's ca_certificates cannot be used. Give them again.",
}


def is_alert(message: str) -> bool:
    """Return whether libcurl's error tells of a TLS alert, which may come after the handshake is over."""
    return "SSL routines::" in message and " alert " in message


def hint_of(message: str) -> str | None:
    """Return what is known of a TLS failure beyond its class, in words.

    `message` is libcurl's text; it is shown to nobody, because it may tell addresses.
    """
    hint = next((hint for part, hint in _HINTS.items() if part in message), None)
    return None if hint is None else " ".join(hint.split())


def is_distrust(hint: str | None) -> bool:
    """Return whether this is what `hint_of` says when nobody who is trusted vouches for the receiver."""
    return hint in [" ".join(each.split()) for each in (_AUTHORITY_HINT, _SELF_SIGNED_HINT, _ISSUER_HINT)]
