"""`make test`: the fast checks, then every test; stops at the first that fails.

Prints what was left out for want of a browser, of Node or of openssl (tests/needs.py), and ends with
pytest's own closing line.
"""

import base64
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

CHECKS = {
    "formatting": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "."],
    "security": ["bandit", "--quiet", "--recursive", "config", "subscriptions", "deliveries"],
    "types": ["mypy"],
    "architecture": ["lint-imports"],
    "system checks": ["python", "manage.py", "check", "--fail-level", "WARNING"],
    "deployment": ["python", "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
    "API documentation": [
        "python",
        "manage.py",
        "spectacular",
        "--validate",
        "--fail-on-warn",
        "--file",
        os.devnull,
    ],
}

# The settings that the checks are made with; the tests bring their own.
ENVIRONMENT = {
    "DEBUG": "on",
    "SECRET_KEY": "for-checks-only-and-long-enough-to-be-accepted-by-checks",
    "SECRET_KEYS": "Zm9yIGNoZWNrcyBvbmx5LCBhbmQgMzIgYnl0ZXMgIS4=",
}

# What README.md, section "Running it for real", has an operator configure.
PRODUCTION = {
    "DEBUG": "off",
    "SECRET_KEY": secrets.token_urlsafe(48),
    "SECRET_KEYS": base64.b64encode(os.urandom(32)).decode(),
    "ALLOWED_HOSTS": "hooks.example.com",
    "HOST": "127.0.0.1",
    "TRUST_FORWARDED_PROTO": "on",
    "PROXY_COUNT": "1",
}
ENVIRONMENTS = {"deployment": PRODUCTION}


def main() -> int:
    arguments = sys.argv[1:]
    for name, command in CHECKS.items():
        if not _passes(name, command):
            return 1
    if arguments == ["--checks-only"]:
        return 0
    _install_packages_of_node()
    return subprocess.run([_program("python"), "-m", "pytest", *arguments], cwd=BASE_DIR, check=False).returncode


def _passes(name: str, command: list[str]) -> bool:
    program, *arguments = command
    result = subprocess.run(
        [_program(program), *arguments],
        cwd=BASE_DIR,
        env=os.environ | ENVIRONMENTS.get(name, ENVIRONMENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
    if result.returncode != 0:
        print(result.stdout, flush=True)
    return result.returncode == 0


def _install_packages_of_node() -> None:
    """Install the packages of tests/receiving, if npm is here and can; without them tests are left out."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        print("packages of Node: left out, node or npm is missing", flush=True)
        return
    # .npmrc there limits how long it tries.
    result = subprocess.run(
        [npm, "ci", "--no-progress"],
        cwd=BASE_DIR / "tests/receiving",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"packages of Node: {'ok' if result.returncode == 0 else 'left out, npm failed'}", flush=True)
    if result.returncode != 0:
        print(result.stdout, flush=True)


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


if __name__ == "__main__":
    sys.exit(main())
