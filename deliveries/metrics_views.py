"""The endpoint that a monitoring system reads."""

import hmac

from django.conf import settings
from django.http import Http404, HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from deliveries import figures, metrics


class MetricsToken(BaseAuthentication):
    """Take `Authorization: Bearer <METRICS_TOKEN>` (RFC 6750) and nothing else.

    Without that setting there is nothing here (404), but in local development everybody may read.
    """

    def authenticate(self, request: Request) -> None:
        if settings.METRICS_TOKEN is None:
            if settings.DEBUG:
                return
            raise Http404
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            raise NotAuthenticated
        if not hmac.compare_digest(token.strip(), settings.METRICS_TOKEN.encode()):
            raise AuthenticationFailed("This is not the METRICS_TOKEN.")

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="metrics"'


class MetricsTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = MetricsToken
    name = "metricsToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "The setting `METRICS_TOKEN`. Optional in local development.",
        }


class MetricsView(APIView):
    """The figures of the whole service for Prometheus, in its text format.

    Every web process gives the same answer. What each metric means is in its HELP line.
    """

    authentication_classes = (MetricsToken,)
    permission_classes = ()

    @extend_schema(
        operation_id="metrics",
        tags=["health"],
        responses={
            (200, "text/plain"): str,
            401: OpenApiResponse(description="The METRICS_TOKEN is missing or wrong."),
            404: OpenApiResponse(description="No METRICS_TOKEN is set."),
        },
    )
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(metrics.text_of(figures.read()), content_type=metrics.CONTENT_TYPE)
