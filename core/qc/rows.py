"""Response candidates as QC sees them, and how they are read from a JSONL file.

Does not cover where candidates come from: any file with `instruction` and `response` will do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataFileError


@dataclass(frozen=True)
class QCRow:
    """One response candidate, kept or not.

    `response` is the cleaned text, `raw` what the model wrote. `finish_reason` is `eos`, `length`
    or `stop:<string>`. `score` is the pair critic's score in nats. `label_flip` says whether the
    two label assignments of the critic disagreed. None means that nobody recorded it.
    """

    id: str
    instruction: str
    response: str
    raw: str | None = None
    finish_reason: str | None = None
    response_tokens: int | None = None
    kept: bool = True
    score: float | None = None
    label_flip: bool | None = None


@dataclass(frozen=True)
class ReadResult:
    """Rows in file order, and (line number from 1, reason) of each line that was skipped."""

    rows: list[QCRow]
    broken: list[tuple[int, str]]


def read_rows(path: Path | str, *, skip_broken: bool = False) -> ReadResult:
    """Response candidates of a JSONL file; blank lines are no candidates and are passed over.

    Reads `instruction` and `response`, and where present `id`, `raw`, `finish_reason`,
    `response_tokens`, `kept` (or `accepted`), `score` and `label_flip`. An empty response is broken
    unless the record says itself that it was not kept: that is then a candidate with its fate.

    Args:
        path: a UTF-8 JSONL file, with or without a byte order mark.
        skip_broken: read what can be read and list the rest, instead of refusing the file.

    Raises:
        DataFileError: the file cannot be opened, holds no usable row, or has broken lines and
            `skip_broken` is off; `lines` then holds every (line number, reason).
    """
    rows: list[QCRow] = []
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(_file_lines(Path(path)), start=1):
        if not line.strip():
            continue
        parsed = _parse_line(line, number)
        if isinstance(parsed, QCRow):
            rows.append(parsed)
        else:
            broken.append((number, parsed))
    if broken and not skip_broken:
        raise DataFileError(_broken_message(path, len(rows), broken), path=str(path), lines=broken)
    if not rows:
        found = f"all {len(broken)} lines are broken" if broken else "the file is empty"
        raise DataFileError(
            f"{path} holds no row that can be judged: {found}; "
            "give a JSONL file with `instruction` and `response` in each line.",
            path=str(path),
            lines=broken,
        )
    return ReadResult(rows, broken)


def _file_lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataFileError(
            f"cannot read {path}: {error.strerror or error}; give the path of a JSONL file.",
            path=str(path),
            lines=[],
        ) from error
    # Split on \n alone: JSON strings may hold U+2028 and U+0085, where str.splitlines would cut.
    return content.removeprefix(b"\xef\xbb\xbf").split(b"\n")


def _parse_line(line: bytes, number: int) -> QCRow | str:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1} of the line)"
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at column {error.colno})"
    except (RecursionError, ValueError) as error:
        return f"not usable JSON ({type(error).__name__})"
    if not isinstance(record, dict):
        return f"a JSON {_json_kind(record)}, not an object"
    problems = _problems(record)
    return "; ".join(problems) if problems else _row(record, number)


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "string"}
    return kinds.get(type(value), "array")


def _problems(record: Mapping[str, Any]) -> list[str]:
    problems = _text_problems(record, "instruction", may_be_empty=False)
    problems += _text_problems(record, "response", may_be_empty=_kept(record) is False)
    for name, kinds, wanted in (
        ("raw", (str,), "a string"),
        ("finish_reason", (str,), "a string"),
        ("response_tokens", (int,), "a whole number"),
        ("score", (int, float), "a number"),
        ("kept", (bool,), "true or false"),
        ("accepted", (bool,), "true or false"),
        ("label_flip", (bool,), "true or false"),
    ):
        value = record.get(name)
        wrong_bool = isinstance(value, bool) and bool not in kinds
        if value is not None and (wrong_bool or not isinstance(value, kinds)):
            problems.append(f"`{name}` is not {wanted}")
    score = record.get("score")
    if isinstance(score, float) and not math.isfinite(score):
        problems.append("`score` is not a finite number")
    tokens = record.get("response_tokens")
    if isinstance(tokens, int) and tokens < 0:
        problems.append("`response_tokens` is negative")
    return problems


def _text_problems(record: Mapping[str, Any], name: str, *, may_be_empty: bool) -> list[str]:
    if name not in record:
        return [f"`{name}` is missing"]
    value = record[name]
    if not isinstance(value, str):
        return [f"`{name}` is a JSON {_json_kind(value)}, not a string"]
    if any("\ud800" <= char <= "\udfff" for char in value):
        return [f"`{name}` holds half of a surrogate pair"]
    if not value.strip() and not may_be_empty:
        return [f"`{name}` is empty"]
    return []


def _kept(record: Mapping[str, Any]) -> object:
    kept = record.get("kept")
    return kept if kept is not None else record.get("accepted")


def _row(record: Mapping[str, Any], number: int) -> QCRow:
    score = record.get("score")
    return QCRow(
        id=str(record.get("id") or f"line-{number}"),
        instruction=record["instruction"],
        response=record["response"],
        raw=record.get("raw"),
        finish_reason=record.get("finish_reason"),
        response_tokens=record.get("response_tokens"),
        kept=_kept(record) is not False,
        score=None if score is None else float(score),
        label_flip=record.get("label_flip"),
    )


def _broken_message(path: Path | str, good: int, broken: list[tuple[int, str]]) -> str:
    listed = "\n".join(f"  line {number}: {reason}" for number, reason in broken)
    return (
        f"{path} has {len(broken)} broken and {good} usable lines:\n{listed}\n"
        "Mend these lines, or pass --skip-broken to judge the rest."
    )
