"""The operator's pages for what was asked for and what came of it: to read, and to replay."""

from typing import Any, cast
from urllib.parse import quote

from django.contrib import admin, messages
from django.db.models import F, Q, QuerySet, Value
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from deliveries.attempts import ANSWERS_TOLD
from deliveries.history_admin import AttemptedFilter, ErrorFilter, PayloadAdmin, PublishedFilter, ReceivedFilter
from deliveries.models import DeliveryAttempt, Event, Trigger, WebhookRequest, WebhookRequestQuerySet
from deliveries.operation_admin import OperationAdmin as OperationAdmin
from deliveries.replay_admin import REPLAY_LIMIT, ReplayAdmin, in_words
from subscriptions.audited_admin import confirmation_page, perform
from subscriptions.models import Subscription
from subscriptions.read_only_admin import NOTHING, ReadOnlyAdmin, link, parse_id, preformatted, shown_time
from subscriptions.visible import visible

TOO_MANY_TO_CANCEL = (
    f"Nothing was canceled: more than {REPLAY_LIMIT} of these are pending. Narrow the list by its filters, or "
    "select page by page. To have a subscription's requests wait, pause or disable it; deleting it, over the API, "
    "cancels all of them."
)

# Subscriptions that are named in a search for a target URL: the names of fifty thousand take seconds.
MOST_TARGETS = 1_000


@admin.register(Event)
class EventAdmin(PayloadAdmin):
    list_display = ("id", "event_type", "shown_tenant", "published_at")
    list_filter = (PublishedFilter,)
    search_help_text = "An event's id, or a whole event type."
    fields = ("id", "event_type", "shown_tenant", "published_at", *PayloadAdmin.payload_fields)
    readonly_fields = fields

    def matching(self, term: str) -> Q:
        event_id = parse_id(term)
        return Q(event_type=term) if event_id is None else Q(id=event_id)

    @admin.display(description="tenant")
    def shown_tenant(self, event: Event) -> str:
        return visible(event.tenant)


class HintMixin:
    @admin.display(description="hint")
    def what_to_do(self, attempt: DeliveryAttempt) -> str:
        return attempt.hint or NOTHING


class AttemptInline(HintMixin, admin.TabularInline):
    """The last attempts of a request, in the order in which they were made: it may be replayed without end."""

    model = DeliveryAttempt
    ordering = ("attempt_number",)
    verbose_name_plural = f"attempts (the last {ANSWERS_TOLD} at most)"
    fields = (
        "attempt_number",
        "trigger",
        "attempted_at",
        "success",
        "status_code",
        "response_ms",
        "error",
        "what_to_do",
    )
    readonly_fields = fields
    show_change_link = True
    can_delete = False
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        attempts = super().get_queryset(request).defer("response_headers", "response_body")
        return attempts.filter(attempt_number__gt=F("request__attempt_count") - ANSWERS_TOLD)

    def has_add_permission(self, request: HttpRequest, obj: WebhookRequest | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: WebhookRequest | None = None) -> bool:
        return False


@admin.register(WebhookRequest)
class WebhookRequestAdmin(ReplayAdmin):
    list_display = (
        "id",
        "subscription_link",
        "event_type",
        "standing",
        "attempts",
        "error",
        "received_at",
        "next_attempt",
    )
    list_select_related = ("subscription",)
    list_filter = ("status", ErrorFilter, ReceivedFilter)
    search_help_text = "The id of a request or a subscription, a whole event type, or how a target URL begins."
    linked_lookups = frozenset({"event__id__exact", "subscription__id__exact", "tenant__exact"})
    actions = ("replay", "cancel")
    inlines = (AttemptInline,)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "id",
                    "subscription_link",
                    "tenant_link",
                    "target_url",
                    "event_link",
                    "event_type",
                    "received_at",
                )
            },
        ),
        (
            "State",
            {
                "fields": (
                    "standing",
                    "last_attempt",
                    "why_held",
                    "next_attempt",
                    "lease_ends_at",
                    "settled_at",
                    "attempt_count",
                    "failure_count",
                    "error",
                    "status_reason",
                )
            },
        ),
        ("Payload", {"fields": ("payload_size", "shown_findings", "readable_payload")}),
        ("Payload as sent", {"fields": ("payload_as_sent",), "classes": ("collapse",)}),
    )
    readonly_fields = (
        "subscription_link",
        "tenant_link",
        "target_url",
        "event_link",
        "standing",
        "last_attempt",
        "why_held",
        "next_attempt",
        "lease_ends_at",
        *PayloadAdmin.payload_fields,
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        requests = cast(WebhookRequestQuerySet, super().get_queryset(request))
        sees_attempts = Value(request.user.has_perm("deliveries.view_deliveryattempt"))
        return requests.select_related("subscription").with_standing().annotate(sees_attempts=sees_attempts)

    def matching(self, term: str) -> Q:
        known_id = parse_id(term)
        if known_id is not None:
            is_subscription = Subscription.objects.filter(id=known_id).exists()
            return Q(subscription_id=known_id) if is_subscription else Q(id=known_id)
        if term.startswith(("http://", "https://")):
            found = Subscription.objects.filter(target_url__startswith=term)
            ids = list(found.values_list("id", flat=True)[: MOST_TARGETS + 1])
            # What is of very many is among the newest, and the list comes to it soon.
            is_of_few = len(ids) <= MOST_TARGETS
            return Q(subscription_id__in=ids) if is_of_few else Q(subscription__target_url__startswith=term)
        return Q(event_type=term)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_cancel"] = context["original"].is_pending and self.has_cancel_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("deliveries.cancel_webhookrequest")

    @admin.action(description="Cancel selected %(verbose_name_plural)s", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: WebhookRequestQuerySet) -> HttpResponse | None:
        """End pending requests untried, once it is confirmed."""
        pending = queryset.filter(status=WebhookRequest.Status.PENDING).order_by("id")
        ids = list(pending.values_list("id", flat=True)[: REPLAY_LIMIT + 1])
        if not ids or len(ids) > REPLAY_LIMIT:
            refusal = TOO_MANY_TO_CANCEL if ids else "None of these is pending."
            self.message_user(request, refusal, messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            sentence = f"{in_words(len(ids))} canceled: not tried again, unless it is replayed."
            return confirmation_page(
                self, request, title="Cancel?", sentences=[sentence], action="cancel", ids=ids, button="Cancel"
            )
        canceled = perform(request, "cancel", pending, operation=cancel_by_hand)
        self.message_user(request, f"Canceled {canceled} request{'' if canceled == 1 else 's'}.")
        return self.back_to(ids)

    @admin.display(description="subscription")
    def subscription_link(self, request: WebhookRequest) -> str:
        return link("admin:subscriptions_subscription_change", request.subscription_id, str(request.subscription))

    @admin.display(description="tenant")
    def tenant_link(self, request: WebhookRequest) -> str:
        if not request.tenant:
            return NOTHING
        url = f"{reverse('admin:deliveries_webhookrequest_changelist')}?tenant__exact={quote(request.tenant, '')}"
        return format_html('<a href="{}">{}</a>', url, visible(request.tenant))

    @admin.display(description="target URL")
    def target_url(self, request: WebhookRequest) -> str:
        return visible(request.subscription.target_url)

    @admin.display(description="event")
    def event_link(self, request: WebhookRequest) -> str:
        if request.event_id is None:
            return NOTHING
        return link("admin:deliveries_event_change", request.event_id, str(request.event_id))

    @admin.display(description="attempts")
    def attempts(self, request: WebhookRequest) -> int:
        return request.attempt_count

    @admin.display(description="status")
    def standing(self, request: WebhookRequest) -> str:
        if not request.is_pending:
            return request.status
        if request.lease_token is not None:
            return "pending, in flight"
        if request.hold_reason is not None:
            return f"pending, held: {request.hold_reason.replace('_', ' ')}"
        if request.trigger == Trigger.REPLAY:
            return "pending, replaying"
        return "pending, retrying" if request.attempt_count else "pending"

    @admin.display(description="last attempt")
    def last_attempt(self, request: WebhookRequest) -> str:
        """Show what the receiver answered, and what may be done: the log of attempts is below the payload."""
        last = request.attempts.defer("response_headers", "response_body").order_by("attempt_number").last()
        if last is None or not vars(request)["sees_attempts"]:
            return NOTHING
        outcome = ", ".join(str(said) for said in (last.status_code, last.error) if said)
        moment = link("admin:deliveries_deliveryattempt_change", last.id, shown_time(last.attempted_at))
        return format_html("{}: {}. {}", moment, outcome or "no error", visible(last.hint or ""))

    @admin.display(description="hold reason")
    def why_held(self, request: WebhookRequest) -> str:
        return request.hold_reason or NOTHING

    @admin.display(description="next attempt")
    def next_attempt(self, request: WebhookRequest) -> str:
        return NOTHING if request.lease_token is not None else shown_time(request.next_attempt_at)

    @admin.display(description="lease ends")
    def lease_ends_at(self, request: WebhookRequest) -> str:
        return NOTHING if request.lease_token is None else shown_time(request.next_attempt_at)


@admin.register(DeliveryAttempt)
class DeliveryAttemptAdmin(HintMixin, ReadOnlyAdmin):
    list_display = (
        "attempted_at",
        "request_link",
        "subscription_link",
        "attempt_number",
        "success",
        "status_code",
        "error",
        "response_ms",
    )
    list_select_related = ("subscription",)
    list_filter = ("success", "error", AttemptedFilter)
    linked_lookups = frozenset({"subscription__id__exact"})
    search_help_text = "The id of a request."
    fieldsets = (
        (None, {"fields": ("request_link", "subscription_link", "attempt_number", "trigger", "attempted_at")}),
        ("Outcome", {"fields": ("success", "status_code", "error", "what_to_do")}),
        ("Timings", {"fields": ("dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "response_ms")}),
        ("Response", {"fields": ("readable_headers", "readable_body")}),
    )
    readonly_fields = ("request_link", "subscription_link", "what_to_do", "readable_headers", "readable_body")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("response_headers", "response_body")

    def matching(self, term: str) -> Q:
        request_id = parse_id(term)
        return Q(pk__in=()) if request_id is None else Q(request_id=request_id)

    @admin.display(description="request")
    def request_link(self, attempt: DeliveryAttempt) -> str:
        return link("admin:deliveries_webhookrequest_change", attempt.request_id, str(attempt.request_id))

    @admin.display(description="subscription")
    def subscription_link(self, attempt: DeliveryAttempt) -> str:
        return link("admin:subscriptions_subscription_change", attempt.subscription_id, str(attempt.subscription))

    @admin.display(description="headers")
    def readable_headers(self, attempt: DeliveryAttempt) -> str:
        return preformatted(attempt.response_headers)

    @admin.display(description="body")
    def readable_body(self, attempt: DeliveryAttempt) -> str:
        return preformatted(bytes(attempt.response_body).decode("utf-8", "replace"))


def cancel_by_hand(requests: WebhookRequestQuerySet) -> int:
    return requests.cancel("canceled by an operator")
