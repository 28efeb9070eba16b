"""Claim and settle without a call between, as a worker does with one."""

from deliveries import claims, settlements
from deliveries.models import DeliveryAttempt
from deliveries.outcome import ErrorClass, Outcome
from deliveries.retry import Decision

SUCCESS = Outcome(error=None, status_code=200, response_ms=5, response_body=b"ok")
FAILURE = Outcome(error=ErrorClass.HTTP_5XX, status_code=500, response_ms=5)


def settlement(request, outcome=SUCCESS, delay=None):
    decision = Decision(delay_seconds=delay)
    return settlements.Settlement(
        request=request, attempted_at=request.claimed_at, outcome=outcome, decision=decision
    )


def claimed_ids(limit=100, after=None):
    return [request.id for request in claims.claim(limit, after=after).requests]


def log_of(request):
    attempts = DeliveryAttempt.objects.filter(request=request).order_by("attempt_number")
    return list(attempts.values_list("attempt_number", "trigger", "success", "status_code", "error"))
