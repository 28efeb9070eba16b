"""`make run`: start everything on this machine, and say where it is.

What is not configured is made up: PostgreSQL and Redis from wheels, development mode,
keys, an admin user. What was made up is kept in the data folder, so that commands run
beside it, and the next start, find the same.
"""

import base64
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any

from django.core.exceptions import ImproperlyConfigured

from config import embedded, supervisor
from config.environment import Env

BASE_DIR = Path(__file__).resolve().parent.parent
ADMIN_NAME = "admin"


_told_to_end: list[int] = []


class CannotStart(Exception):
    """Something is in the way; the text says what, for people."""


def main() -> None:
    Env.read_env(BASE_DIR / ".env")
    data_dir = BASE_DIR / os.environ.get("DATA_DIR", ".data")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        with _only_instance(data_dir):
            _check_port()
            _check_counts()
            made_up = _make_up_settings(data_dir)
            _load_settings()
            _remember(data_dir, made_up)
            with _servers(data_dir):
                _check_redis()
                _collect_static_files()
                _say_where(_prepare_database())
                _run()
    except (CannotStart, embedded.EmbeddedServerError, ImproperlyConfigured) as error:
        sys.exit(f"Cannot start: {error}")
    except OSError as error:
        sys.exit(f"Cannot start: {error.strerror or error}: {error.filename or data_dir}")


def _end(number: int, frame: Any) -> None:
    """End with the status that stands for this signal, or before anything more is started.

    Python drops an exception that comes up while it disposes of an object.
    """
    _told_to_end.append(number)
    sys.exit(128 + number)


@contextlib.contextmanager
def _only_instance(data_dir: Path) -> Iterator[IO[str]]:
    """Hold the data folder's lock: two instances on one folder would destroy its data."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another instance is running on {data_dir}.") from None
        yield lock


def _port() -> int:
    text = os.environ.get("PORT", "8000")
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise CannotStart(f"PORT is {text!r}, which is not a port number.")
    return int(text)


def _check_port() -> None:
    family = socket.AF_INET6 if ":" in _host() else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_host(), _port()))
        except OSError as error:
            raise CannotStart(
                f"port {_port()} cannot be used ({error.strerror}). "
                f"Choose another one: make run PORT={_port() + 1}"
            ) from None


def _check_counts() -> None:
    """Refuse numbers of processes and threads with which nothing would run."""
    counts = {
        "WEB_PROCESSES": Env().int("WEB_PROCESSES", 1),
        "WEB_THREADS": Env().int("WEB_THREADS", 1),
        "WORKER_PROCESSES": Env().int("WORKER_PROCESSES", 1),
    }
    for name, count in counts.items():
        if count < 1:
            raise CannotStart(f"{name} is {count}, and at least 1 is needed.")


def _host() -> str:
    """Return the address to listen on, without the brackets that one of IPv6 may have as in a URL."""
    text = os.environ.get("HOST") or "127.0.0.1"
    try:
        return str(ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise CannotStart(f"HOST is {text!r}, which is not an IP address, such as 127.0.0.1.") from None


def _make_up_settings(data_dir: Path) -> list[str]:
    """Fill in, in the environment, what development mode needs and nobody has set; return what to remember."""
    os.environ.setdefault("DEBUG", "on")
    if not Env().bool("DEBUG"):
        missing = [name for name in ("SECRET_KEY", "SECRET_KEYS", "ALLOWED_HOSTS") if not os.environ.get(name)]
        if missing:
            raise CannotStart(f"DEBUG is off, and {', '.join(missing)} must then be set; see README.md.")
        return []
    Env.read_env(data_dir / "development.env")
    made_up = {
        "DEBUG": "on",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "SECRET_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    for name, value in made_up.items():
        os.environ.setdefault(name, value)
    return list(made_up)


def _remember(data_dir: Path, names: list[str]) -> None:
    """Keep these settings for the next start, once: not before they were found to be good."""
    remembered = data_dir / "development.env"
    if not names or remembered.exists():
        return
    text = "".join(f"{name}={os.environ[name]}\n" for name in names)
    unfinished = remembered.with_suffix(".unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text("# Made up by `make run`, for this folder's database; deleted with it.\n" + text)
    unfinished.rename(remembered)


@contextlib.contextmanager
def _servers(data_dir: Path) -> Iterator[None]:
    """Run the embedded servers that nobody has configured others for."""
    with contextlib.ExitStack() as stack:
        for variable, start in (
            ("DATABASE_URL", embedded.start_postgresql),
            ("REDIS_URL", embedded.start_redis),
        ):
            if variable not in os.environ:
                stack.callback(start(data_dir).stop)
        yield


def _load_settings() -> None:
    """Load the settings, and refuse those with which each process would end at once, and be started again."""
    import django
    from django.core.checks import run_checks

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    for finding in run_checks():
        if finding.is_serious():
            raise CannotStart(f"{finding.msg} {finding.hint or ''}".rstrip())


def _collect_static_files() -> None:
    """Put the files of the pages where `web` finds them outside development mode."""
    from django.conf import settings
    from django.core.management import call_command

    if not settings.DEBUG:
        call_command("collectstatic", verbosity=0, interactive=False)


def _check_redis() -> None:
    from django.conf import settings
    from redis import Redis, RedisError

    try:
        with Redis.from_url(settings.REDIS_URL, socket_connect_timeout=5, retry=None) as client:
            client.ping()
    except RedisError as error:
        raise CannotStart(f"Redis does not answer: {_in_one_line(error)}") from None


def _prepare_database() -> str | None:
    """Migrate, and make the first admin user; return its password, which has to be told: it is stored nowhere."""
    from django.core.management import call_command
    from django.db import Error, connection

    try:
        connection.ensure_connection()
        call_command("migrate", verbosity=0, interactive=False)
        return _make_admin()
    except Error as error:
        raise CannotStart(f"the database does not work: {_in_one_line(error)}") from None
    finally:
        connection.close()


def _make_admin() -> str | None:
    """Make the admin user if there is no superuser yet, and return the password."""
    from django.contrib.auth import get_user_model

    users: Any = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN_NAME, password=password)
    return password


def _say_where(password: str | None) -> None:
    host = f"[{_host()}]" if ":" in _host() else _host()
    url = f"http://{host}:{_port()}"
    print(f"Webhook delivery service: {url}  (API documentation: {url}/docs, admin: {url}/admin/)")
    if password is not None:
        print(f"admin login: {url}/admin/ {ADMIN_NAME} {password}")
    print("Ctrl-C stops it.", flush=True)


def _run() -> None:
    if _told_to_end:
        sys.exit(128 + _told_to_end[0])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = dict(os.environ) | {
        "PATH": path,
        "HOST": _host(),
        "PORT": str(_port()),
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
    }
    workers = Env().int("WORKER_PROCESSES", 1)
    supervisor.run_procfile(BASE_DIR / "Procfile", environment=environment, concurrency={"worker": workers})


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
