import os
import shutil
import subprocess
import sys

from tests.service import BASE_DIR

FILES = ("tests/browser/test_admin.py", "tests/receiving/test_receiving.py", "tests/test_needs.py")


def test_it_says_plainly_what_is_left_out_where_nothing_is_installed(tmp_path):
    redis_server = shutil.which("redis-server")
    if redis_server:  # on which the tests themselves may depend: not every Python has one bundled
        (tmp_path / "redis-server").symlink_to(redis_server)
    environment = os.environ | {"CHROMIUM": "no-such-browser", "PATH": str(tmp_path)}
    for server in ("DATABASE_URL", "REDIS_URL"):
        environment.pop(server, None)  # the inner run has servers of its own
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *FILES],
        env=environment,
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout
    assert "browser tests were left out for want of a browser: set CHROMIUM to one" in said
    assert "  tests/browser/test_admin.py::test_an_operator_replays_a_failed_request" in said
    assert "node tests were left out for want of Node: put node on the PATH." in said
    assert "  tests/receiving/test_receiving.py::test_it_takes_a_delivery_and_no_other_body[a secret in" in said
    assert "openssl tests were left out for want of openssl: put openssl on the PATH." in said
    assert "tests/test_needs.py::test_it_says_plainly" in said
