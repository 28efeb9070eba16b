import os
import subprocess
import sys
from pathlib import Path


def test_it_says_plainly_what_is_left_out_without_a_browser():
    environment = os.environ | {"CHROMIUM": "no-such-browser"}
    for server in ("DATABASE_URL", "REDIS_URL"):
        environment.pop(server, None)  # the inner run has servers of its own
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/browser/test_admin.py", __file__],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 browser tests were left out for want of a browser: set CHROMIUM to one" in result.stdout
    assert "  tests/browser/test_admin.py::test_an_operator_replays_a_failed_request" in result.stdout
    assert "3 deselected" in result.stdout
