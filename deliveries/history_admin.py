"""What the pages about events, requests and attempts share: filters, and readable payloads."""

import re
from contextlib import suppress
from itertools import accumulate
from uuid import UUID

import msgspec
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from deliveries.models import Event, WebhookRequest
from deliveries.outcome import ErrorClass
from subscriptions.read_only_admin import NOTHING, ReadOnlyAdmin, TimeFilter, preformatted

# What a payload may have when it is indented, and by how much it is.
MAX_READABLE_BYTES = 4 * 1024 * 1024
INDENT = 2

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKET = re.compile(rb"[^\[\]{}]+")


class PublishedFilter(TimeFilter):
    title = "published"
    field = "published_at"


class ReceivedFilter(TimeFilter):
    title = "received"
    field = "received_at"


class AttemptedFilter(TimeFilter):
    title = "attempted"
    field = "attempted_at"


class ErrorFilter(admin.SimpleListFilter):
    """Answers what is not delivered, or not yet, and why."""

    title = "error"
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("any", "Any error"), *((error.value, error.value) for error in ErrorClass)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None:
            return queryset
        return queryset.exclude(error="") if self.value() == "any" else queryset.filter(error=self.value())


class PayloadAdmin(ReadOnlyAdmin):
    """Pages of what has a payload: readable, as it was sent, and to download byte for byte."""

    payload_fields = ("payload_size", "shown_findings", "readable_payload", "payload_as_sent")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("payload")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.download_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_payload"
        return [path("<uuid:row_id>/payload", view, name=name), *super().get_urls()]

    def download_view(self, request: HttpRequest, row_id: UUID) -> HttpResponse:
        row = self.get_object(request, str(row_id))
        if row is None:
            raise Http404
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        # Never shown by the browser as a page: whoever publishes decides what is in it.
        return HttpResponse(
            row.body,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{row_id}.json"'},
        )

    @admin.display(description="payload")
    def payload_size(self, row: Event | WebhookRequest) -> str:
        url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_payload", args=(row.id,))
        return format_html('{} bytes, <a href="{}">download</a>', len(row.body), url)

    @admin.display(description="findings of the schema")
    def shown_findings(self, row: Event | WebhookRequest) -> str:
        findings = row.findings if isinstance(row, Event) else row.all_findings
        lines = [f"{each['pointer']} {each['code']}: {each['detail']}".strip() for each in findings or ()]
        return preformatted("\n".join(lines)) if lines else NOTHING

    @admin.display(description="formatted")
    def readable_payload(self, row: Event | WebhookRequest) -> str:
        return preformatted(readable(row.body))

    @admin.display(description="as sent")
    def payload_as_sent(self, row: Event | WebhookRequest) -> str:
        return preformatted(row.body.decode("utf-8", "backslashreplace"))


def readable(content: bytes) -> str:
    """Return JSON indented, its numbers, escapes and repeated keys untouched; anything else as it is.

    What would grow beyond all bounds, with each line at a depth of hundreds, is left as it is too.
    """
    with suppress(msgspec.DecodeError, RecursionError):
        msgspec.json.decode(content, type=msgspec.Raw)  # the size is told of JSON only
        if _indented_size(content) <= MAX_READABLE_BYTES:
            content = msgspec.json.format(content, indent=INDENT)
    return content.decode("utf-8", "replace")


def _indented_size(content: bytes) -> int:
    """Return what JSON has at most when it is indented: a line for each value, as deep as the deepest."""
    structure = _STRING.sub(b"", content)
    brackets = _NO_BRACKET.sub(b"", structure)
    depth = max(accumulate(1 if byte in b"[{" else -1 for byte in brackets), default=0)
    lines = structure.count(b",") + len(brackets)
    return len(content) + lines * depth * INDENT
