"""Which store URLs are understood, and what is said about the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.store.failures import store_label
from core.store.urls import parse_store_url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a URL"),
        ("runs/store.db", "not a URL"),
        ("sqlite://", "no file"),
        ("sqlite:///:memory:", "no file"),
        ("sqlite://runs/store.db", "two slashes"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "options"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite"),
        ("mysql://me:hunter2@host/db", "mysql"),
        ("postgresql://me:hunter2@host", "no database"),
        ("postgresql://me:hunter2@host:port/db", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(text: str, says: str) -> None:
    """The message says what is wrong and never repeats a password."""
    with pytest.raises(ConfigError) as caught:
        parse_store_url(text)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.values["problems"]


def test_a_sqlite_path_does_not_depend_on_where_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is made absolute once, and the tilde is the home directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parse_store_url("sqlite:///runs/s.db").database == str(tmp_path / "runs" / "s.db")
    assert parse_store_url("sqlite:///~/s.db").database == str(tmp_path / "home" / "s.db")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg(scheme: str) -> None:
    """The driver that is installed is used, and the label shown to people hides the password."""
    url = parse_store_url(f"{scheme}://me:hunter2@host/db")
    assert url.drivername == "postgresql+psycopg"
    assert "hunter2" not in store_label(url)
