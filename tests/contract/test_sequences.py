"""Calls that follow from one another, as the ids in answers lead from operation to operation.

With schemathesis's checks for that: what was made is found, and what was deleted is not, besides all
those of single calls.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import transaction
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import initialize
from redis import Redis
from schemathesis import Case, Response
from schemathesis.generation.stateful.state_machine import StepInput, StepOutput

from deliveries import idempotency
from subscriptions import cache
from tests.contract.document import MANY, load
from tests.contract.rows import new_api_key
from tests.contract.values import BODIES, VALUES, cursor_at, with_values
from tests.wsgi import kept_connections

# Of single calls it is looked at whether they need a key.
document = load(checks={"ignored_auth": {"enabled": False}})

STEPS = 20
SEQUENCES = int(MANY or 15)

# Test calls go to nobody, and fail at once.
NOBODY = {"target_url": "http://127.0.0.1:65535/", "token_url": "http://127.0.0.1:65535/", "timeout_seconds": 1}
# Whatever the rows are that a sequence makes.
OF_ANY = {"If-Match": "*", "cursor": cursor_at(UUID(int=7 << 76))}
MEANT = VALUES | NOBODY | OF_ANY

quietly = hypothesis_settings(
    max_examples=SEQUENCES,
    stateful_step_count=STEPS,
    derandomize=MANY is None,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def undone() -> Iterator[None]:
    """Undo what is stored within the block."""
    with kept_connections(), transaction.atomic():
        yield
        transaction.set_rollback(True)


MACHINE = document.as_state_machine()


class Sequence(MACHINE):  # type: ignore[valid-type, misc]
    """One sequence of calls with an API key of its own, in a transaction that is undone."""

    # The operations that accepted a call, of all sequences.
    accepted: ClassVar[set[str]] = set()

    def setup(self) -> None:
        cache.clear()
        with Redis.from_url(settings.REDIS_URL) as redis:
            redis.flushdb()  # where calls are counted, for limits
        self._undo = ExitStack()
        self._undo.enter_context(undone())
        self.api_key = new_api_key()

    def teardown(self) -> None:
        self._undo.close()

    @initialize(target=MACHINE.bundles["POST /subscriptions -> 201"])
    def begin_with_a_subscription(self) -> StepOutput:
        case = document["/subscriptions"]["POST"].Case(body={"target_url": NOBODY["target_url"]})
        self.recorder.record_case(case=case)
        return self.step(StepInput.initial(case))

    def get_call_kwargs(self, case: Case) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {self.api_key}"}}

    def before_call(self, case: Case) -> None:
        """Have the call mean what a schema cannot say, but for the ids in its path."""
        for place in ("query", "headers", "body"):
            given = getattr(case, place)
            meant = with_values(given, MEANT)
            if place == "body" and isinstance(meant, dict):
                meant = BODIES.get(case.path, {}) | meant
            if meant != given:
                setattr(case, place, meant)
        key = (case.headers or {}).get(idempotency.HEADER)
        if key is not None and re.fullmatch(idempotency.PATTERN, key):
            # One of a single character is soon there again, and refused with another body.
            case.headers[idempotency.HEADER] = str(uuid4())

    def call(self, case: Case, **options: Any) -> Response:
        savepoint = transaction.savepoint()
        answer: Response = super().call(case, **options)
        if answer.status_code < 400:
            self.accepted.add(case.operation.label)
        else:  # it changed nothing
            transaction.savepoint_rollback(savepoint)
        return answer


@pytest.mark.timeout(0 if MANY else 240)
def test_what_one_call_answers_is_true_for_those_that_follow(db: None) -> None:
    Sequence.run(settings=quietly)
    # Else no id led anywhere.
    assert len({operation for operation in Sequence.accepted if "{" in operation}) >= 5
