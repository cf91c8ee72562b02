"""Field types of the store: closed word lists, checked strings, counts that cannot be negative.

`table=True` classes are not validated by SQLModel, so these types do their work in the Create and
End models, before anything reaches a table.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints
from pydantic import Field as PydanticField

ERROR_MAX_CHARS = 4000
_LARGEST_INTEGER = 2**63 - 1  # BIGINT; SQLite and PostgreSQL agree on it


class RunStatus(StrEnum):
    """Where a pipeline run stands. `rejected`: a gate said no, and that is how it ended."""

    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class StageStatus(StrEnum):
    """Where one attempt at a stage stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Verdict(StrEnum):
    """What QC says about an iteration."""

    PASS = "pass"
    FAIL = "fail"
    INSUFFICIENT = "insufficient"


class MetricVerdict(StrEnum):
    """What QC says about one metric."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INSUFFICIENT = "insufficient"
    NOT_MEASURED = "not_measured"


class GateStatus(StrEnum):
    """Where a gate stands. A void one was opened for an artifact that has changed since."""

    OPEN = "open"
    WAITING = "waiting"
    PARKED = "parked"
    DECIDED = "decided"
    VOID = "void"


class DecisionKind(StrEnum):
    """What a gate's decision is."""

    APPROVE = "approve"
    ITERATE = "iterate"
    REJECT = "reject"


class AdviceEffect(StrEnum):
    """How a metric moved after a change."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNKNOWN = "unknown"


def enum_text(words: type[StrEnum]) -> sa.Enum:
    """Column type that stores the word itself: readable in any SQL shell, no type to migrate."""
    return sa.Enum(
        words,
        native_enum=False,
        create_constraint=False,
        validate_strings=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character, which PostgreSQL cannot store")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is not valid text") from error
    return text


def _storable_error(text: str) -> str:
    """An error report must not fail for its own wording: bad characters are escaped."""
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= ERROR_MAX_CHARS:
        return text
    return text[: ERROR_MAX_CHARS - 1] + "…"


def _finite_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    return value


def _sorted_unique(hashes: list[str]) -> list[str]:
    return sorted(set(hashes))


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_storable)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_storable)]
ErrorText = Annotated[str, AfterValidator(_storable_error)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ConfigHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,64}$")]
GitSha = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Count = Annotated[int, PydanticField(ge=0, le=_LARGEST_INTEGER)]
SmallCount = Annotated[int, PydanticField(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, PydanticField(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, PydanticField(allow_inf_nan=False)]
JsonDict = Annotated[dict[str, Any], AfterValidator(_finite_json)]
Sha256List = Annotated[list[Sha256], AfterValidator(_sorted_unique)]
