"""The admin's pages of what was delivered, and what tests do there."""

from django.test import Client
from django.urls import reverse

from deliveries.models import DeliveryAttempt, Event, WebhookRequest

REQUESTS = "/admin/deliveries/webhookrequest/"
ATTEMPTS = "/admin/deliveries/deliveryattempt/"
EVENTS = "/admin/deliveries/event/"
LISTS = (REQUESTS, ATTEMPTS, EVENTS)


def page_of(row: WebhookRequest | DeliveryAttempt | Event) -> str:
    return reverse(f"admin:deliveries_{row._meta.model_name}_change", args=(row.id,))


def shown(client: Client, url: str, **parameters: str) -> list:
    response = client.get(url, parameters)
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def replay(client: Client, *rows: WebhookRequest, url: str = REQUESTS, **fields: str):
    data = {"action": "replay", "_selected_action": [str(row.id) for row in rows]} | fields
    return client.post(url, data, follow=True)
