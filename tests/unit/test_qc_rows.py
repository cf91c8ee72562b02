"""Reading candidates from JSONL, above all from broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataFileError
from core.qc.rows import read_rows

GOOD = {"instruction": "Name a colour.", "response": "Blue"}


def _file(tmp_path: Path, *lines: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_reads_known_fields(tmp_path: Path) -> None:
    """Every optional field that is present arrives in the row."""
    record = GOOD | {
        "id": "r1",
        "raw": "Blue\n",
        "finish_reason": "eos",
        "response_tokens": 2,
        "accepted": False,
        "score": 1,
        "label_flip": True,
        "other": [1],
    }
    row = read_rows(_file(tmp_path, json.dumps(record).encode())).rows[0]
    assert (row.id, row.raw, row.finish_reason, row.response_tokens) == ("r1", "Blue\n", "eos", 2)
    assert (row.kept, row.score, row.label_flip) == (False, 1.0, True)


def test_bare_rows_are_kept_and_named_by_line(tmp_path: Path) -> None:
    """A row without id or fate is a kept one, named by its line in the file."""
    rows = read_rows(_file(tmp_path, b"", json.dumps(GOOD).encode())).rows
    assert [(row.id, row.kept, row.finish_reason) for row in rows] == [("line-2", True, None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not an object"),
        (b"null", "not an object"),
        (b'{"response": "x"}', "`instruction` is missing"),
        (b'{"instruction": "x", "response": ""}', "`response` is empty"),
        (b'{"instruction": "x", "response": "  "}', "`response` is empty"),
        (b'{"instruction": 5, "response": "x"}', "not a string"),
        (b'{"instruction": "\xff", "response": "x"}', "not UTF-8"),
        (b'{"instruction": "x", "response": "\\ud800"}', "surrogate"),
        (b'{"instruction": "x", "response": "y", "kept": "no"}', "`kept` is not true or false"),
        (b'{"instruction": "x", "response": "y", "score": NaN}', "finite"),
        (b'{"instruction": "x", "response": "y", "response_tokens": true}', "whole number"),
        (b'{"instruction": "x", "response": "y", "response_tokens": -1}', "negative"),
        (b"[" * 100_000, "not usable JSON"),
    ],
)
def test_broken_line_is_named_and_can_be_skipped(tmp_path: Path, line: bytes, reason: str) -> None:
    """A broken line stops the reading with its number and reason; on request the rest is read."""
    good = json.dumps(GOOD).encode()
    path = _file(tmp_path, good, line, good)
    with pytest.raises(DataFileError, match="line 2") as caught:
        read_rows(path)
    assert reason in str(caught.value)
    result = read_rows(path, skip_broken=True)
    assert [row.id for row in result.rows] == ["line-1", "line-3"]
    assert [number for number, _ in result.broken] == [2]


def test_all_broken_lines_are_reported_at_once(tmp_path: Path) -> None:
    """The message names every broken line, not the first alone."""
    path = _file(tmp_path, json.dumps(GOOD).encode(), *[b"x"] * 40)
    with pytest.raises(DataFileError) as caught:
        read_rows(path)
    assert [number for number, _ in caught.value.values["lines"]] == list(range(2, 42))
    assert "line 41" in str(caught.value)


def test_rejected_candidate_may_be_empty(tmp_path: Path) -> None:
    """An empty response is a fact, not damage, where the record says that it was not kept."""
    line = json.dumps({"instruction": "x", "response": "", "kept": False}).encode()
    assert read_rows(_file(tmp_path, line)).rows[0].response == ""


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x\n"])
def test_file_without_rows_is_unusable(tmp_path: Path, content: bytes) -> None:
    """A file with nothing to judge is refused even when broken lines are skipped."""
    with pytest.raises(DataFileError, match="no row"):
        read_rows(_file(tmp_path, content), skip_broken=True)


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    """A path that cannot be opened is bad input, not a traceback."""
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataFileError, match="cannot read"):
            read_rows(path)


def test_line_separators_inside_strings_do_not_split(tmp_path: Path) -> None:
    """U+2028 and a carriage return belong to the text; a byte order mark does not."""
    record = GOOD | {"response": "a\u2028b\u0085c"}
    line = b"\xef\xbb\xbf" + json.dumps(record, ensure_ascii=False).encode() + b"\r"
    assert read_rows(_file(tmp_path, line)).rows[0].response == "a\u2028b\u0085c"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Arbitrary bytes give rows or DataFileError and nothing else."""
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    path.write_bytes(data)
    try:
        assert read_rows(path, skip_broken=True).rows
    except DataFileError as error:
        assert error.exit_code == 2
