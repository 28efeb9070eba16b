"""The OpenAPI document is true: schemathesis calls every operation with data made from it, with all its checks."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from config.wsgi import application
from tests.contract.doors import DOORS
from tests.contract.rows import Rows

# `make contract` sets it: so many random calls for each operation, others each time.
# `make test` makes a few, the same each time for as long as the document does not change.
# Both make the calls for each boundary of an operation's schema.
MANY = os.environ.get("CONTRACT_EXAMPLES")

CONFIG = {
    **({"seed": 1} if MANY is None else {}),
    "generation": {
        "deterministic": MANY is None,
        "max-examples": int(MANY or 10),
        "database": "none",
        # NUL is refused in every text, which a schema cannot say.
        "allow-x00": False,
        # The key is ours; the check ignored_auth looks what is answered without it, and to another.
        "with-security-parameters": False,
    },
}

document = schemathesis.openapi.from_wsgi(
    "/openapi.json", application, config=SchemathesisConfig.from_dict(CONFIG)
)
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
