"""The doors of POST /ingest, behind one who signs what is sent through them."""

import io
from collections.abc import Callable, Iterable
from typing import Any

from config.wsgi import application, django_application
from tests.conftest import signature_of

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def signing(door: Application) -> Application:
    """Put the right signature into the place of the generated one; a call that brings none gets none."""

    def signed(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ = environ | {"wsgi.input": io.BytesIO(body)}
        if "HTTP_X_WEBHOOK_SIGNATURE" in environ:
            environ["HTTP_X_WEBHOOK_SIGNATURE"] = signature_of(body)
        return door(environ, start_response)

    return signed


DOORS = {"wsgi": signing(application), "view": signing(django_application)}
