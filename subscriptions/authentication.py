"""API keys for DRF: who calls, and whether the key's scopes cover what is called."""

from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from subscriptions.api_keys import ApiKey

if TYPE_CHECKING:
    from rest_framework.views import APIView


class BearerAuthentication(BaseAuthentication):
    """Take `Authorization: Bearer <api key>` (RFC 6750); `request.auth` is the ApiKey."""

    realm = "webhooks"

    def authenticate(self, request: Request) -> tuple[None, ApiKey] | None:
        scheme, _, text = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = ApiKey.objects.authenticate(text.strip())
        if key is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.")
        key.note_use()
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return f'Bearer realm="{self.realm}"'


class HasScope(BasePermission):
    """Allow the call if the key has the scope that the view names for its method.

    HEAD and OPTIONS tell nothing that GET does not, and take its scope. In local development
    (DEBUG) a call without a key is allowed; a wrong key never is.
    """

    message = "This call needs an API key with the scope `{scope}`."
    default_scopes: ClassVar[dict[str, str]] = {"GET": ApiKey.Scope.READ}

    def has_permission(self, request: Request, view: "APIView") -> bool:
        key = request.auth
        if not isinstance(key, ApiKey):
            if settings.DEBUG:
                return True
            raise NotAuthenticated("This call needs an API key: send it as Authorization: Bearer whk_…")
        scope = self.scope_of(view, request.method or "")
        self.message = HasScope.message.format(scope=scope)
        return key.has_scope(scope)

    @classmethod
    def scope_of(cls, view: "APIView", method: str) -> str:
        """Return the scope that a view wants for a method."""
        scopes = cls.default_scopes | getattr(view, "scopes", {})
        return str(scopes.get("GET" if method in ("HEAD", "OPTIONS") else method, ApiKey.Scope.MANAGE))


def tenant_of(request: Request) -> str | None:
    """Return the tenant that the caller is bound to; None is an operator, who sees every one."""
    return request.auth.tenant if isinstance(request.auth, ApiKey) else None
