import pytest

from deliveries.models import WebhookRequest
from tests.conftest import ingest_body, signed_headers


@pytest.mark.django_db
def test_it_delivers(make_subscription, receiver, client_with_key, deliver):
    s = make_subscription(receiver.url)
    b = ingest_body(s.id)
    r = client_with_key.generic(
        "POST", "/ingest", b, content_type="application/json", headers=dict(signed_headers(b))
    )
    assert r.status_code == 202, r.content
    assert deliver() == 1
    assert receiver.arrivals[0].body == b'{"n": 1}'
    assert WebhookRequest.objects.get().status == "delivered"
