import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from psycopg import sql

import databases
from conftest import Python
from live import until
from yapit.errors import CapacityError, SettingsError, StartupError, YapitError
from yapit.settings import Settings
from yapit.store import Download, Store, schema
from yapit.store.database import _MIGRATING, Database
from yapit.store.places import Place
from yapit.store.tables import METADATA

ENTRY = {"id": "mine", "backend": "echo", "tasks": ["embed"]}
SECRETS = ("s3cr", "p@ss", "p%40ss", "w%rd", "w%25rd")


def everything(error: BaseException) -> str:
    """Return all that a log may show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "__dict__", {}))


def in_folder(folder: Path) -> Settings:
    return Settings(data_dir=str(folder))


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_file_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    store = Store.of(in_folder(tmp_path / "data"))
    assert (store.models(), store.downloads(), store.generation()) == ([], [], 0)
    store.close()
    assert not (tmp_path / "data").exists()


def test_the_file_is_made_with_its_folder_for_its_owner_alone(tmp_path: Path) -> None:
    store = Store.of(in_folder(tmp_path / "some" / "data"))
    store.register(ENTRY)
    file = tmp_path / "some" / "data" / "yapit.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with sqlite3.connect(file) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert stat.S_IMODE(file.with_name("yapit.db-wal").stat().st_mode) == 0o600
    reader.close()


def test_every_connection_to_the_file_minds_foreign_keys_and_waits_for_others(tmp_path: Path) -> None:
    place = Place.of(in_folder(tmp_path))
    database = Database(place)
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(Place.of(in_folder(tmp_path)))
    store = Store.of(in_folder(tmp_path))
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE yapit_generations SET value = 5")
        assert store.generation() == 0
    assert store.generation() == 5
    database.close()


def test_who_will_write_reads_what_nobody_changes_meanwhile(tmp_path: Path) -> None:
    """Read first, a transaction that did not say at once that it will write would fail instead of waiting."""
    database = Database(Place.of(in_folder(tmp_path)))
    failures: list[BaseException] = []

    def count() -> None:
        try:
            for _ in range(20):
                with database.writing() as connection:
                    value = connection.exec_driver_sql("SELECT value FROM yapit_generations").scalar_one()
                    connection.exec_driver_sql("UPDATE yapit_generations SET value = ?", (value + 1,))
        except YapitError as error:
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Store.of(in_folder(tmp_path)).generation() == 80
    database.close()


def test_what_was_written_before_an_error_is_not_kept(database: Settings) -> None:
    opened = Database(Place.of(database))

    def fail() -> None:
        with opened.writing() as connection:
            connection.execute(sqlalchemy.text("UPDATE yapit_generations SET value = 5"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with opened.reading() as connection:
        assert connection.execute(sqlalchemy.text("SELECT value FROM yapit_generations")).scalar() == 0
    opened.close()


def test_a_url_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, file in (
        ("sqlite:///beside.db", tmp_path / "beside.db"),
        (f"sqlite+aiosqlite:///{tmp_path}/a b/c.db?x=y", tmp_path / "a b" / "c.db"),
    ):
        store = Store.of(Settings(database=url))
        store.register(ENTRY)
        store.close()
        assert file.is_file()


def test_a_server_that_is_there_first_sees_the_file_that_another_one_makes(tmp_path: Path) -> None:
    early, late = Store.of(in_folder(tmp_path)), Store.of(in_folder(tmp_path))
    assert early.generation() == 0
    late.register(ENTRY)
    assert early.generation() == 1
    assert [model.id for model in early.models()] == ["mine"]


# ── what cannot be opened ─────────────────────────────────────────────────────────────────────────────────────────────
def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "yapit.db").write_text("hello " * 1000)
    with pytest.raises(StartupError, match=r"the database '.*/yapit\.db' cannot be opened: file is not a database$"):
        Store.of(in_folder(tmp_path))
    assert (tmp_path / "yapit.db").read_text() == "hello " * 1000


def test_a_folder_that_cannot_be_made_is_an_error_of_the_one_who_has_something_to_keep(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store.of(in_folder(tmp_path / "file" / "data"))
    with pytest.raises(CapacityError, match="cannot be opened") as refused:
        store.register(ENTRY)
    assert refused.value.status == 503
    assert refused.value.code == "database_unavailable"
    assert "Not a directory" in str(refused.value.__cause__)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://root:s3cr@host/x", "this is 'mysql'"),
        ("yapit:s3cr@host/x", "this is no URL"),
        ("s3cr", "this is no URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://yapit:s3cr@host:p@ss/x", "this is no URL"),
    ],
)
def test_a_url_of_something_else_is_refused(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Store.of(Settings(database=url))
    assert "\n" not in refused.value.message
    assert not any(secret in everything(refused.value) for secret in SECRETS)


def test_a_missing_driver_is_said_with_its_mend(python: Python) -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from yapit.errors import SettingsError
from yapit.settings import Settings
from yapit.store import Store
try:
    Store.of(Settings(database="postgresql://yapit:s3cr@localhost/x"))
except SettingsError as error:
    print(error)
"""
    said = python(program).stdout
    assert said == "database: PostgreSQL needs its driver; try: pip install 'yapit[postgresql]'\n"


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def wrong_password(running: databases.Postgresql) -> str:
    return running.url("postgres", "wrong s3cr p@ss")


def no_such_database(running: databases.Postgresql) -> str:
    return running.url("missing")


def not_escaped(running: databases.Postgresql) -> str:
    return f"postgresql://yapit:{databases.PASSWORD}@/postgres?host={running.folder}"


def in_the_query(running: databases.Postgresql) -> str:
    return f"postgresql://yapit@/postgres?host={running.folder}&password=wrong%20s3cr&sslpassword=p%40ss"


def only_a_part_is_taken_for_it(_running: databases.Postgresql) -> str:
    return "postgresql://yapit:s3cr@p@ss@127.0.0.1:1/x"


def wrong_option(running: databases.Postgresql) -> str:
    return f"{running.url('postgres')}&colour=red"


def nobody_there(_running: databases.Postgresql) -> str:
    return "postgresql://yapit:s3cr%20p%40ss@127.0.0.1:1/x"


@pytest.mark.parametrize(
    "url",
    [
        wrong_password,
        no_such_database,
        not_escaped,
        only_a_part_is_taken_for_it,
        in_the_query,
        wrong_option,
        nobody_there,
    ],
)
def test_no_error_names_the_password(
    postgresql: databases.Postgresql, url: Callable[[databases.Postgresql], str]
) -> None:
    settings = Settings(database=url(postgresql))
    with pytest.raises(StartupError) as refused:
        Store.of(settings)
    assert "\n" not in refused.value.message
    seen = everything(refused.value)
    assert not any(secret in seen for secret in SECRETS)
    assert "ss@127" not in seen


def test_a_database_that_does_not_answer_is_no_traceback_with_secrets(postgresql: databases.Postgresql) -> None:
    name = postgresql.make()
    store = Store.of(Settings(database=postgresql.url(name)))
    store.register(ENTRY)
    postgresql.shut(name)
    for call in (store.models, store.generation, store.downloads, lambda: store.register(ENTRY, replace=True)):
        with pytest.raises(CapacityError, match=r"The database does not answer now\.") as refused:
            call()
        assert refused.value.retry_after_s == 5
        assert "not currently accepting connections" in str(refused.value.__cause__)
        assert not any(secret in everything(refused.value) for secret in SECRETS)
    postgresql.open(name)
    assert store.generation() == 1, "as soon as it is back"
    store.close()


def test_where_it_is_is_shown_without_the_password(postgresql: databases.Postgresql, tmp_path: Path) -> None:
    name = postgresql.make()
    store = Store.of(Settings(database=postgresql.url(name)))
    assert store.shown == f"postgresql://yapit:…@/{name}?host={postgresql.folder}"
    store.close()
    assert Store.of(in_folder(tmp_path)).shown == str(tmp_path / "yapit.db")


def test_urls_for_other_drivers_are_understood(postgresql: databases.Postgresql) -> None:
    name = postgresql.make()
    _, _, rest = postgresql.url(name).partition("://")
    for scheme in ("postgres", "postgresql+asyncpg", "postgresql+psycopg2", "POSTGRESQL"):
        store = Store.of(Settings(database=f"{scheme}://{rest}"))
        assert store.models() == []
        store.close()


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_migrations_make_the_tables_that_the_code_asks(database: Settings) -> None:
    opened = Database(Place.of(database))
    with opened.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
        columns = sqlalchemy.inspect(connection).get_columns("yapit_downloads")
    assert [column["name"] for column in columns] == list(Download.__struct_fields__)
    opened.close()


def test_the_newest_version_is_that_of_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "yapit.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.NEWEST]


def test_tables_that_a_newer_yapit_made_are_left_alone(database: Settings) -> None:
    store = Store.of(database)
    store.register(ENTRY)
    opened = Database(Place.of(database))
    with opened.writing() as connection:
        connection.execute(sqlalchemy.text("UPDATE yapit_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="version 9999, made by a newer yapit") as refused:
        Store.of(database)
    assert "\n" not in refused.value.message
    with opened.reading() as connection:
        assert connection.execute(sqlalchemy.text("SELECT id FROM yapit_models")).scalars().all() == ["mine"]
    opened.close()
    store.close()


def test_a_migration_that_fails_leaves_nothing_behind(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are made in one transaction: half of them would be worse than none."""
    original = schema.migrate

    def broken(connection: sqlalchemy.Connection) -> None:
        original(connection)
        connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))

    monkeypatch.setattr(schema, "migrate", broken)
    with pytest.raises(StartupError, match="nowhere"):
        Database(Place.of(database))
    monkeypatch.undo()
    opened = Database(Place.of(database))
    with opened.reading() as connection:
        assert schema.version(connection) == schema.NEWEST
    opened.close()


def test_whoever_opens_waits_while_another_one_migrates_postgresql(postgresql: databases.Postgresql) -> None:
    place = Place.of(Settings(database=postgresql.url(postgresql.make())))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as watcher:
        with psycopg.connect(str(place.url).replace("+psycopg", "")) as other:
            other.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            opener = threading.Thread(target=lambda: Database(place).close())
            opener.start()
            assert until(lambda: watcher.execute(waiting).fetchone() == (1,))
            assert opener.is_alive()
        opener.join()
    store = Store.of(Settings(database=str(place.url)))
    assert store.generation() == 0
    store.close()


def test_whoever_opens_waits_while_another_one_migrates_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yapit.store.database._MIGRATION_S", 0.1)
    place = Place.of(in_folder(tmp_path))
    with FileLock(f"{place.file}.lock"), pytest.raises(StartupError, match="could not be acquired"):
        Database(place)
    Database(place).close()


def test_an_application_with_migrations_of_its_own_may_have_the_same_database(
    postgresql: databases.Postgresql,
) -> None:
    name = postgresql.make()
    for statement in (
        "CREATE TABLE alembic_version (version_num text)",
        "INSERT INTO alembic_version VALUES ('theirs')",
        "CREATE TABLE models (id int)",
    ):
        postgresql.run(sql.SQL(statement), name)
    store = Store.of(Settings(database=postgresql.url(name)))
    store.register(ENTRY)
    assert [model.id for model in store.models()] == ["mine"]
    store.close()


# ── what it costs ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_nothing_heavy_is_imported_before_something_is_kept(python: Python, tmp_path: Path) -> None:
    program = """
import sys
from yapit.settings import Settings
from yapit.store import Store
store = Store.of(Settings(data_dir=sys.argv[1]))
store.models(), store.generation(), store.downloads()
heavy = {"sqlalchemy", "alembic", "psycopg", "filelock"}
print(sorted(heavy & sys.modules.keys()))
store.register({"id": "m", "backend": "echo", "tasks": []})
print(sorted(heavy & sys.modules.keys()))
"""
    assert python(program, str(tmp_path)).stdout.split("\n") == [
        "[]",
        "['alembic', 'filelock', 'sqlalchemy']",
        "",
    ]


def test_tables_that_are_the_newest_are_opened_without_alembic(python: Python, database: Settings) -> None:
    Database(Place.of(database)).close()
    program = """
import sys
import msgspec
from yapit.settings import Settings
from yapit.store import Store
store = Store.of(msgspec.json.decode(sys.argv[1], type=Settings))
print(store.models(), "alembic" in sys.modules)
store.close()
"""
    assert python(program, msgspec.json.encode(database).decode()).stdout == "[] False\n"


def test_the_migrations_are_in_the_wheel(tmp_path: Path) -> None:
    core = Path(__file__).parents[3] / "core"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=core, check=True, capture_output=True)
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", *map(str, tmp_path.glob("*.whl"))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "yapit/store/migrations/env.py" in listing
    assert "yapit/store/migrations/versions/r0001_" in listing


def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    store = Store.of(in_folder(tmp_path))
    store.register(ENTRY)
    database: Any = store._database
    pages: list[int] = []

    def small(connection: sqlite3.Connection, _record: object) -> None:
        pages.append(connection.execute("PRAGMA max_page_count = 1").fetchone()[0])

    sqlalchemy.event.listen(database._engine, "connect", small)
    with pytest.raises(YapitError, match="has no room") as refused:
        store.register({**ENTRY, "id": "large", "description": "x" * 100_000})
    assert refused.value.status == 507
    assert pages
