"""Servers for the tests: loaded by pytest before Django reads its settings.

Without DATABASE_URL and REDIS_URL, PostgreSQL and Redis are started from wheels in a
folder that is removed afterwards. A Redis that was given is only used in a database of
it that is empty.
"""

import base64
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from config import embedded

_cleanup = contextlib.ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Generator[None, None, None]:
    # A shell has what it runs in the background pass Ctrl-C over, and the processes that tests start with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A wrapper runs before the hook by which pytest-django loads the settings.
    _start_servers()
    return (yield)


def _start_servers() -> None:
    folder = Path(tempfile.mkdtemp(prefix="webhooks-test-"))
    _cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    # As root, PostgreSQL runs as another user, who has to get in.
    folder.chmod(0o755)
    if "DATABASE_URL" not in os.environ:
        _cleanup.callback(embedded.start_postgresql(folder, durable=False).stop)
        os.environ["DATABASE_URL"] = embedded.database_url(folder)
    if "REDIS_URL" not in os.environ:
        _cleanup.callback(embedded.start_redis(folder).stop)
        os.environ["REDIS_URL"] = embedded.redis_url(folder)
    else:
        os.environ["REDIS_URL"] = _empty_database(os.environ["REDIS_URL"])
    os.environ |= {
        "DEBUG": "on",
        "SECRET_KEY": "for-tests-only-and-long-enough-to-be-accepted-by-checks",
        "SECRET_KEYS": base64.b64encode(sha256(b"for tests only").digest()).decode(),
        "DATA_DIR": str(folder),
        "LOG_LEVEL": "INFO",
        # The tests of it set their own; others are as fast as they can.
        "API_RATE_LIMIT": "",
    }


def pytest_unconfigure() -> None:
    _cleanup.close()


def _empty_database(url: str) -> str:
    """Return the URL of an empty database of this Redis; the tests flush what they use."""
    for number in range(15, 0, -1):
        candidate = f"{url.partition('?')[0]}?db={number}"
        with redis.Redis.from_url(candidate) as client:
            if client.dbsize() == 0:
                return candidate
    raise pytest.UsageError(f"No empty database at REDIS_URL={quote(url)}: the tests flush the one they use.")
