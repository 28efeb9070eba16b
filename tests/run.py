"""`make test`: the fast checks, then every test; stops at the first that fails.

Prints what was left out for want of a browser, and ends with pytest's own closing line.
"""

import os
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


def main() -> int:
    arguments = sys.argv[1:]
    for name, command in CHECKS.items():
        if not _passes(name, command):
            return 1
    if arguments == ["--checks-only"]:
        return 0
    return subprocess.run([_program("python"), "-m", "pytest", *arguments], cwd=BASE_DIR, check=False).returncode


def _passes(name: str, command: list[str]) -> bool:
    program, *arguments = command
    result = subprocess.run(
        [_program(program), *arguments],
        cwd=BASE_DIR,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"{name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
    if result.returncode != 0:
        print(result.stdout, flush=True)
    return result.returncode == 0


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


if __name__ == "__main__":
    sys.exit(main())
