"""One-time codes (TOTP, RFC 6238) of approvers: a name typed into a form is not enough.

Secrets are kept in one file of the operator's (mode 0600), never in the store or in a config. The code
itself comes from `cryptography`, which is in the lock anyway.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInputError, DataFileError
from core.files import write_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

STEP_S = 30
DIGITS = 6
DRIFT_STEPS = 1
"""A code of the step before or after is taken, too: clocks of telephones differ by some seconds."""
_SECRET_BYTES = 20


def new_secret() -> str:
    """A fresh secret, 160 bits in Base32, as authenticator programs want it."""
    return base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def provisioning_uri(approver: str, secret: str) -> str:
    """The `otpauth://` address that an authenticator program takes."""
    return _totp(secret).get_provisioning_uri(approver, "stagegate")


def code_at(secret: str, moment: datetime) -> str:
    """The code that is valid at a moment."""
    return _totp(secret).generate(int(moment.timestamp())).decode()


def matching_step(secret: str, code: str, moment: datetime) -> int | None:
    """The time step (30 s since 1970) whose code this is, within the drift; None for a wrong code."""
    given = "".join(code.split())
    for drift in range(-DRIFT_STEPS, DRIFT_STEPS + 1):
        at = moment + timedelta(seconds=drift * STEP_S)
        if secrets.compare_digest(code_at(secret, at).encode(), given.encode()):
            return int(at.timestamp()) // STEP_S
    return None


def read_secrets(path: Path) -> dict[str, str]:
    """Secrets by approver; empty where there is no file.

    Raises:
        DataFileError: the file cannot be read or is not of this form.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {str(name): str(secret) for name, secret in content.items()}
        for secret in found.values():
            base64.b32decode(secret)
    except (OSError, ValueError, AttributeError, binascii.Error) as error:
        raise DataFileError(f"{path} holds no secrets of approvers: {error}", lines=[]) from error
    return found


def enrol(path: Path, approver: str, *, replace: bool = False) -> str:
    """The approver's new secret, saved for this machine's eyes only.

    Raises:
        BadInputError: there is one already, and `replace` was not given.
    """
    known = read_secrets(path)
    if approver in known and not replace:
        raise BadInputError(f"{approver} has a secret already; give --replace to make the old one useless")
    known[approver] = new_secret()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    write_json(path, known)
    path.chmod(0o600)
    return known[approver]


def secret_of(approver: str, known: Mapping[str, str]) -> str | None:
    """The approver's secret, whatever the case of the letters; None for nobody known."""
    return next((s for name, s in known.items() if name.casefold() == approver.casefold()), None)


def _totp(secret: str) -> TOTP:
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

    # SHA-1 is what authenticator programs speak; RFC 6238 does not rest on its collision resistance.
    return TOTP(base64.b32decode(secret), DIGITS, SHA1(), STEP_S)
