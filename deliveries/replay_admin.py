"""The admin's replay: of requests by name, or of all that a list shows, as an operation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from deliveries import bulk_runs, operations
from deliveries.bulk import Operation
from deliveries.history_admin import PayloadAdmin, ReceivedFilter
from deliveries.models import WebhookRequest, WebhookRequestQuerySet
from deliveries.operations import SETTLED_STATUSES, Selection
from subscriptions import audit
from subscriptions.audited_admin import confirmation_page, perform
from subscriptions.models import Subscription
from subscriptions.read_only_admin import COUNT_LIMIT, link, parse_id
from subscriptions.visible import visible

# Requests replayed by name: they are one batch, and each is a field of a form. More than
# these are an operation.
REPLAY_LIMIT = operations.REPLAY_BATCH

NEEDS_NONE = "Nothing was replayed: a pending request is still to be delivered and needs no replay."
NOTHING_LEFT = (
    "Nothing was replayed: what is pending needs no replay, and to a deleted subscription nothing is sent."
)
NOTHING_SENT = "Nothing was replayed: these are pending, or their subscriptions are disabled or deleted."
NO_FILTERS = (
    "It cannot be written as filters which they are. Select all of a list that shows everything, or that is "
    "filtered by status, one error, time, one tenant, subscription or event type; or use “manage.py replay”."
)


class ReplayAdmin(PayloadAdmin):
    """Pages of requests, which whoever may can have delivered again."""

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_replay"] = not context["original"].is_pending and self.has_replay_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("deliveries.replay_webhookrequest")

    @admin.action(description="Replay selected %(verbose_name_plural)s", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: WebhookRequestQuerySet) -> HttpResponse | None:
        """Deliver settled requests again, once it is confirmed; the selection may be a single one."""
        ids = list(queryset.order_by("id").values_list("id", flat=True)[: REPLAY_LIMIT + 1])
        if len(ids) > REPLAY_LIMIT:
            return self._replay_in_bulk(request, ids[:1])
        # A selection without ids would be one of everything.
        settled = list(Selection(ids=ids).queryset().only("event_type")) if ids else []
        left_out = Selection(ids=ids).left_out().count() if ids else 0
        if not settled:
            self.message_user(request, NOTHING_LEFT if left_out else NEEDS_NONE, messages.ERROR)
            return self.back_to(ids)
        if "confirmed" not in request.POST:
            return self._ask_before_replay(request, ids, len(settled), left_out)
        # What has settled since is not replayed: perform() would not record it.
        chosen = [row.id for row in settled]
        rows = WebhookRequest.objects.filter(id__in=chosen)
        replayed = perform(request, "replay", rows, operation=lambda _: operations.replay(Selection(ids=chosen)))
        self.message_user(request, f"{in_words(replayed)} delivered again.", messages.SUCCESS)
        return self.back_to(ids)

    def _ask_before_replay(
        self, request: HttpRequest, ids: Sequence[UUID], settled: int, left_out: int
    ) -> HttpResponse:
        pending = len(ids) - settled - left_out
        sentences = [f"{in_words(settled)} delivered again, to the target URL that the subscription has now."]
        if pending:
            sentences.append(f"{in_words(pending)} left alone, because pending means still to be delivered.")
        if left_out:
            sentences.append(f"{in_words(left_out)} left alone, because the subscription was deleted.")
        return confirmation_page(
            self, request, title="Replay?", sentences=sentences, action="replay", ids=ids, button="Replay"
        )

    def _replay_in_bulk(self, request: HttpRequest, ids: Sequence[UUID]) -> HttpResponse | None:
        """Start an operation over all that the list shows, once it is confirmed."""
        is_all = request.POST.get("select_across") == "1"
        selection = selection_of(request.GET) if is_all else None
        if selection is None:
            refusal = f"More than {REPLAY_LIMIT} requests are selected. {NO_FILTERS}"
            self.message_user(request, refusal, messages.ERROR)
            return None
        count = bulk_runs.selected(selection).order_by().values("id")[: COUNT_LIMIT + 1].count()
        if count == 0:
            self.message_user(request, NOTHING_SENT, messages.ERROR)
            return None
        if "confirmed" in request.POST:
            started = _start(request, selection)
            shown = link("admin:deliveries_operation_change", started.id, str(started))
            self.message_user(request, format_html("They are delivered again by {}.", shown), messages.SUCCESS)
            return None
        return self._ask_before_operation(request, ids, selection, count)

    def _ask_before_operation(
        self, request: HttpRequest, ids: Sequence[UUID], selection: Mapping[str, Any], count: int
    ) -> HttpResponse:
        extent = in_words(count) if count <= COUNT_LIMIT else f"More than {in_words(COUNT_LIMIT)}"
        sentences = (
            f"{extent} delivered again in the background, to the target URLs that subscriptions have now.",
            f"They are selected by {visible(_shown(selection))}.",
            "What is pending is left alone, and what is of a disabled or deleted subscription.",
        )
        return confirmation_page(
            self,
            request,
            title="Replay?",
            sentences=sentences,
            action="replay",
            ids=ids,
            button="Replay",
            is_all=True,
        )

    def back_to(self, ids: Sequence[UUID]) -> HttpResponse | None:
        """Lead to the page of a single request; None leads back to the list."""
        if len(ids) != 1:
            return None
        return HttpResponseRedirect(reverse("admin:deliveries_webhookrequest_change", args=ids))


def in_words(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'} will be"


def _start(request: HttpRequest, selection: Mapping[str, Any]) -> Operation:
    """Start an operation over the selection, and record who did."""
    actor = audit.user_actor(request, cast(User, request.user))
    tenant = selection.get("tenant")
    if "subscription" in selection:
        tenant = Subscription.objects.get(id=selection["subscription"]).tenant
    with transaction.atomic():
        started = bulk_runs.start(Operation.Kind.REPLAY, selection, tenant=tenant, requested_by=actor.name)
        given = {name: value for name, value in audit.snapshot(started).items() if value not in audit.EMPTY}
        audit.record(actor, "replay", kind="operation", object_id=started.id, after=given)
    return started


def _shown(selection: Mapping[str, Any]) -> str:
    shown = {name: value if isinstance(value, str) else " or ".join(value) for name, value in selection.items()}
    return ", ".join(f"{name}: {value}" for name, value in shown.items())


def selection_of(parameters: QueryDict) -> dict[str, Any] | None:
    """Return, as an operation's selection, what the list of requests shows; None if no filters say it.

    The list shows every status unless it is told one, and so does this.
    """
    selection: dict[str, Any] = {}
    for name, values in parameters.lists():
        found = FILTERS[name](values[0]) if name in FILTERS and len(values) == 1 else None
        if found is None or found.keys() & selection.keys():
            return None
        selection |= found
    return {"status": list(SETTLED_STATUSES)} | selection


def _searched(text: str) -> dict[str, Any] | None:
    term = text.strip()
    if "\0" in term:
        return None  # Django's list does not search for it, and PostgreSQL has no such text
    if parse_id(term) is not None:
        return _of_subscription(term)  # of a request's id there are no more than one
    if not term.startswith(("http://", "https://")):
        return {"event_type": term} if term else {}
    found = Subscription.objects.filter(target_url__startswith=term).values_list("id", flat=True)[:2]
    return {"subscription": str(found[0])} if len(found) == 1 else None


def _of_subscription(text: str) -> dict[str, Any] | None:
    subscription_id = parse_id(text)
    is_known = subscription_id is not None and Subscription.objects.filter(id=subscription_id).exists()
    return {"subscription": str(subscription_id)} if is_known else None


def _received(text: str) -> dict[str, Any]:
    if text not in ReceivedFilter.windows:
        return {}
    _, length = ReceivedFilter.windows[text]
    return {"received_after": (timezone.now() - length).isoformat()}


# How each parameter of the list is said in an operation's selection.
FILTERS: Mapping[str, Callable[[str], dict[str, Any] | None]] = {
    "q": _searched,
    "status__exact": lambda text: {"status": [text]},
    "error": lambda text: None if text == "any" else {"error": text},
    "within": _received,
    "subscription__id__exact": _of_subscription,
    "tenant__exact": lambda text: {"tenant": text},
    "p": lambda _: {},  # which page, which says nothing of the whole
    "all": lambda _: {},
}
