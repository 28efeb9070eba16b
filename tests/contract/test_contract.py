"""The OpenAPI document is true: schemathesis calls every operation with data made from it, with all its checks."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from tests.contract.document import load
from tests.contract.doors import DOORS
from tests.contract.rows import Rows

# Besides the random calls, those for each boundary of an operation's schema are made.
document = load()
quietly = settings(deadline=None, suppress_health_check=list(HealthCheck))


@document.parametrize()
@quietly
def test_it_does_what_it_documents(case: schemathesis.Case, rows: Rows) -> None:
    rows.call(case, headers={"Authorization": f"Bearer {rows.api_key}"})


@pytest.mark.parametrize("door", DOORS)
@document.include(path="/ingest").parametrize()
@quietly
def test_ingest_does_what_it_documents_with_the_right_signature(
    case: schemathesis.Case, rows: Rows, door: str
) -> None:
    rows.call(case, app=DOORS[door])
