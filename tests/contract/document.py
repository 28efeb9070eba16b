"""The document that the calls are made from, and how many of them are made."""

import os
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema

from config.wsgi import application

# `make contract` sets it: so many random calls for each operation, others each time.
# `make test` makes a few, the same each time for as long as the document does not change.
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


def load(**more: Any) -> BaseSchema:
    """Read /openapi.json, for calls with every check that schemathesis has, but for what `more` configures."""
    config = SchemathesisConfig.from_dict(CONFIG | more)
    return schemathesis.openapi.from_wsgi("/openapi.json", application, config=config)
