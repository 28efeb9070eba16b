"""The admin's pages of subscriptions, and what its form sends."""

from django.urls import reverse

from subscriptions.models import Subscription

LIST = "/admin/subscriptions/subscription/"
ADD = f"{LIST}add/"

FIELDS = {
    "target_url": "https://receiver.example.com/hook",
    "description": "invoices",
    "tenant": "acme",
    "event_types": "invoice.paid,refund.*",
    "secret": "",
    "retry_schedule": "10,20",
    "timeout_seconds": "5",
    "max_in_flight": "2",
    "metadata": "{}",
}


def page_of(subscription: Subscription) -> str:
    return reverse("admin:subscriptions_subscription_change", args=(subscription.id,))
