"""How a subscription's calls prove who makes them, besides their signature: the kinds, and their rules.

Stored encrypted as the JSON of one of these kinds, told apart by `type`.
"""

import base64
import re
from collections.abc import Iterable
from typing import get_args

import msgspec

from subscriptions.addresses import Network, RefusedURL, check_url
from subscriptions.certificates import RefusedCertificate, check_pair
from subscriptions.headers import RefusedHeader, check_header

MAX_LENGTH = 4096

# Not as narrow as RFC 6750: there are receivers whose tokens have colons and bars.
_BEARER_TOKEN = re.compile(r"[!-~]+")
# RFC 6749, appendix A.
_VISIBLE_TEXT = re.compile(r"[ -~]+")
# Neither control characters nor half characters, which cannot be encoded.
_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")


class RefusedAuth(ValueError):
    """An `auth` that cannot be used; the text says why, for the one who wrote it, and no secret."""


class _Kind(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """One kind of `auth`. `__repr__` shows no field, so that no secret gets into a log."""

    def __repr__(self) -> str:
        return type(self).__name__

    @property
    def headers(self) -> dict[str, str]:
        """The headers that are known before the call, if this kind has any."""
        return {}


class Basic(_Kind, frozen=True, tag="basic"):
    """User name and password (RFC 7617)."""

    username: str
    password: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()}


class Bearer(_Kind, frozen=True, tag="bearer"):
    """A fixed token (RFC 6750)."""

    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class ApiKeyHeader(_Kind, frozen=True, tag="api_key"):
    """A key in a header of the receiver's choice."""

    header: str
    value: str

    @property
    def headers(self) -> dict[str, str]:
        return {self.header: self.value}


class ClientCredentials(_Kind, frozen=True, tag="oauth2_client_credentials"):
    """An access token that is fetched from `token_url` (RFC 6749, 4.4)."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str | None = None


class MutualTLS(_Kind, frozen=True, tag="mtls"):
    """A client certificate, with its chain, and its key, in PEM."""

    certificate: str
    private_key: str


Auth = Basic | Bearer | ApiKeyHeader | ClientCredentials | MutualTLS
TYPES = [str(kind.__struct_config__.tag) for kind in get_args(Auth)]

_decoder: msgspec.json.Decoder[Auth] = msgspec.json.Decoder(Auth)


def parse(text: str | bytes) -> Auth:
    """Return the `auth` whose JSON this is; raise RefusedAuth if it is none."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise _misfit(str(error)) from None


def of(value: object) -> Auth:
    """Return the `auth` that this JSON value says; raise RefusedAuth if it says none."""
    try:
        found: Auth = msgspec.convert(value, Auth)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise _misfit(str(error)) from None
    return found


def _misfit(message: str) -> RefusedAuth:
    if message.startswith("Invalid value") and message.endswith("`$.type`"):
        return RefusedAuth(f"The type is one of {', '.join(TYPES)}.")
    return RefusedAuth(f"{message}.")


def check(auth: Auth, allowed_networks: Iterable[Network] = ()) -> None:
    """Raise RefusedAuth unless calls can be made with `auth`."""
    match auth:
        case Basic():
            _check_basic(auth)
        case Bearer():
            if len(auth.token) > MAX_LENGTH or not _BEARER_TOKEN.fullmatch(auth.token):
                raise RefusedAuth(
                    f"The token is visible ASCII text without spaces, of at most {MAX_LENGTH} characters."
                )
        case ApiKeyHeader():
            _check_api_key(auth)
        case ClientCredentials():
            _check_client_credentials(auth, allowed_networks)
        case MutualTLS():
            _check_mutual_tls(auth)


def _check_basic(auth: Basic) -> None:
    if ":" in auth.username:
        raise RefusedAuth("The user name has no colon (RFC 7617).")
    if not _TEXT.fullmatch(auth.username + auth.password):
        raise RefusedAuth("The user name and the password have no control characters.")
    if len(auth.username) + len(auth.password) > MAX_LENGTH:
        raise RefusedAuth(f"The user name and the password have at most {MAX_LENGTH} characters together.")


def _check_api_key(auth: ApiKeyHeader) -> None:
    if len(auth.value) > MAX_LENGTH:
        raise RefusedAuth(f"The value has at most {MAX_LENGTH} characters.")
    try:
        check_header(auth.header, auth.value)
    except RefusedHeader as refused:
        raise RefusedAuth(str(refused)) from None


def _check_client_credentials(auth: ClientCredentials, allowed_networks: Iterable[Network]) -> None:
    try:
        check_url(auth.token_url, allowed_networks)
    except RefusedURL as refused:
        raise RefusedAuth(f"The token URL: {refused}") from None
    for name, text in (("client_id", auth.client_id), ("client_secret", auth.client_secret)):
        if len(text) > MAX_LENGTH or not _VISIBLE_TEXT.fullmatch(text):
            raise RefusedAuth(f"{name} is visible ASCII text of at most {MAX_LENGTH} characters.")
    if auth.scope is not None and (len(auth.scope) > MAX_LENGTH or not _VISIBLE_TEXT.fullmatch(auth.scope)):
        raise RefusedAuth("The scope is a list of names, separated by spaces.")


def _check_mutual_tls(auth: MutualTLS) -> None:
    try:
        check_pair(auth.certificate, auth.private_key)
    except RefusedCertificate as refused:
        raise RefusedAuth(str(refused)) from None
