"""The append-only record of a generation: every candidate and its fate, one JSON object a line.

Records are written in batches, each closed by a commit line that chains the hashes of all lines before
it. What comes after the last commit belongs to a batch that died halfway; it is dropped when the
journal is opened and computed again whole. Nothing else is ever rewritten.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import IntegrityError
from core.files import storage_error

COMMIT = "commit"
_GENESIS = "0" * 64


@dataclass(frozen=True)
class Batch:
    """A committed batch: its name (`instructions-3`), its records, what its commit line says."""

    name: str
    records: tuple[dict[str, Any], ...]
    summary: dict[str, Any]


class Journal:
    """A journal file that is open for reading and appending.

    Args:
        path: the JSONL file; made when missing.

    Raises:
        IntegrityError: a committed line was changed.
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[Batch] = []
        self._chain = _GENESIS
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            committed = self._read(content)
            if committed < len(content):
                os.truncate(path, committed)
            path.touch()
        except OSError as error:
            raise storage_error(path, error) from error

    def append(self, name: str, records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Batch:
        """Write a batch and its commit line, synced to disk before returning.

        Raises:
            StorageError: disk full or read-only; earlier batches are intact.
        """
        lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
        chain = _link(self._chain, lines)
        commit = {"kind": COMMIT, "batch": name, "records": len(lines), "chain": chain, **summary}
        data = b"".join(line + b"\n" for line in [*lines, json.dumps(commit).encode()])
        size = self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.path, size)
            raise storage_error(self.path, error) from error
        batch = Batch(name, tuple(dict(record) for record in records), dict(summary))
        self.batches.append(batch)
        self._chain = chain
        return batch

    def records(self, kind: str) -> list[dict[str, Any]]:
        """All committed records of a kind, in order."""
        return [r for batch in self.batches for r in batch.records if r["kind"] == kind]

    def _read(self, content: bytes) -> int:
        """Take in the committed batches; return the bytes that they fill."""
        pending: list[bytes] = []
        committed = position = 0
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            position += len(line) + 1
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict) and record.get("kind") == COMMIT:
                self._take_in(record, pending, number)
                pending, committed = [], position
            else:
                pending.append(line)
        return committed

    def _take_in(self, commit: dict[str, Any], lines: list[bytes], number: int) -> None:
        chain = _link(self._chain, lines)
        if commit.get("chain") != chain or commit.get("records") != len(lines):
            raise IntegrityError(
                f"{self.path} was changed: the {len(lines)} lines before the commit on line {number} "
                "do not match its hash; restore the file, or start in a new run.output_dir",
                line=number,
            )
        summary = {k: v for k, v in commit.items() if k not in ("kind", "batch", "records", "chain")}
        self.batches.append(Batch(commit["batch"], tuple(json.loads(x) for x in lines), summary))
        self._chain = chain


def _link(previous: str, lines: Sequence[bytes]) -> str:
    digest = hashlib.sha256(previous.encode())
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()
