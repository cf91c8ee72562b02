"""One-time codes: the standard's own numbers, drift, and the file that holds the secrets."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import BadInputError, DataFileError
from reviews.codes import code_at, enrol, matching_step, new_secret, provisioning_uri, read_secrets, secret_of

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
NOW = datetime(2026, 11, 24, 12, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("second", "code"), [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")]
)
def test_codes_are_those_of_the_standard(second: int, code: str) -> None:
    """The last six digits of RFC 6238's own test values."""
    moment = datetime.fromtimestamp(second, UTC)
    assert code_at(RFC_SECRET, moment) == code
    assert matching_step(RFC_SECRET, code, moment) == second // 30


@pytest.mark.parametrize(
    ("seconds", "taken"), [(0, True), (30, True), (-30, True), (90, False), (-90, False)]
)
def test_a_code_lives_for_one_step_around_its_own(seconds: int, taken: bool) -> None:
    """Clocks may differ by half a minute, not by more."""
    code = code_at(RFC_SECRET, NOW + timedelta(seconds=seconds))
    assert (matching_step(RFC_SECRET, code, NOW) is not None) == taken


@pytest.mark.parametrize("code", ["", "1", "abcdef", "12345678901234567890", "２８７０８２", "000000\x00"])
def test_anything_else_is_no_code(code: str) -> None:
    """Texts of any kind are refused without an error."""
    assert matching_step(RFC_SECRET, code, NOW) is None


def test_a_secret_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    """Enrolling writes mode 0600, refuses to replace silently, and finds names in any case."""
    path = tmp_path / "home" / "approvers.json"
    secret = enrol(path, "anna")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_secrets(path) == {"anna": secret}
    assert secret_of("ANNA", read_secrets(path)) == secret
    with pytest.raises(BadInputError, match="--replace"):
        enrol(path, "anna")
    assert enrol(path, "anna", replace=True) != secret
    assert len(base64.b32decode(new_secret())) == 20
    assert provisioning_uri("anna", secret).startswith("otpauth://totp/stagegate:anna?")


@pytest.mark.parametrize("content", ["", "[]", '{"anna": 1}', '{"anna": "not base 32!"}', "\x00"])
def test_a_broken_file_of_secrets_is_named(tmp_path: Path, content: str) -> None:
    """Whatever is in the file, it is an error in words, never an open gate."""
    path = tmp_path / "approvers.json"
    path.write_text(content)
    with pytest.raises(DataFileError, match=r"approvers\.json"):
        read_secrets(path)
