"""JSON answers that have JSON in them which nobody is to touch."""

from collections.abc import Mapping
from typing import Any

import msgspec
from rest_framework.renderers import BaseRenderer


class ExactJSONRenderer(BaseRenderer):
    """Write JSON, with each `msgspec.Raw` in it as the bytes that it holds.

    DRF's own renderer would parse a payload and write it anew: with other numbers, other
    spaces, and without the keys that come twice.
    """

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else msgspec.json.encode(data)
