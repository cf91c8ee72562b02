"""A run's folder: one process at a time, one config, one model, all artifacts in it.

config.yaml  run.json  model/  certification/  generation/  dataset/  qc/  manifest.json
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from core.errors import DataFileError, RunMismatchError
from core.files import storage_error, write_json, write_text
from core.provenance.environment import environment
from core.provenance.manifest import MANIFEST, Artifact, read_artifact, seal_artifact

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"


class RunHome:
    """The folder of one run, locked for this process while it is open.

    Args:
        folder: made when missing.
        config_values: the dumped config; `config_yaml` is the same as text.
        run_id: the run that the folder is part of; one of its own when None.

    Raises:
        RunMismatchError: another config or another process is in there.
        DataFileError: the folder's run.json cannot be read.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        config_values: Mapping[str, Any],
        config_hash: str,
        run_id: str | None = None,
    ) -> None:
        self.folder = folder
        self.config_values = dict(config_values)
        self.config_hash = config_hash
        self.record: dict[str, Any] = {}
        self._given_run_id = run_id
        self._lock = filelock.FileLock(folder / ".lock")

    def open(self, config_yaml: str, differences: Sequence[str] | None = None) -> RunHome:
        """Lock the folder and take it over, new or for resuming.

        Args:
            differences: lines that name what differs between the config there and this one.
        """
        self._take_lock()
        try:
            known = self.known_record(self.folder)
            if known is not None:
                self._refuse_other_config(known, differences or ())
            self.record = known or self._new_record()
            if not (self.folder / MANIFEST).is_file():  # a sealed run is not written to again
                self.record["environments"] = self._environments(known)
                write_text(self.folder / CONFIG_FILE, config_yaml)
                self._save()
        except BaseException:
            self.close()
            raise
        return self

    @staticmethod
    def known_record(folder: Path) -> dict[str, Any] | None:
        """What run.json says, None where there is none. Raises DataFileError when unreadable."""
        path = folder / RUN_FILE
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            record["config_hash"], record["run_id"], record["config"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DataFileError(
                f"{path} cannot be read ({error}); restore it, or choose a new run.output_dir",
                lines=[],
            ) from error
        return dict(record)

    @property
    def run_id(self) -> str:
        """Id of the run in the store: a UUID."""
        return str(self.record["run_id"])

    @property
    def provenance_hash(self) -> str:
        """First 16 hex digits of the config hash and the run id; every record carries them."""
        return f"{self.config_hash[:16]}:{self.run_id}"

    def bind(self, what: str, values: Mapping[str, Any], keys: Sequence[str]) -> None:
        """Tie the run to a thing that it uses; refuse another one later.

        Args:
            what: `model`, `inputs`: under this name it is kept in run.json.
            keys: the values that make it the same thing.
        """
        known = self.record.get(what) or values
        changed = [
            f"{what} {key}: {known.get(key)!r} -> {values.get(key)!r}"
            for key in keys
            if known.get(key) != values.get(key)
        ]
        if changed:
            raise self._mismatch(changed)
        self.record[what] = dict(values)
        self._save()

    def seal(
        self, name: str, files: Sequence[str], parents: Sequence[Artifact], meta: Mapping[str, Any]
    ) -> Artifact:
        """Seal the sub-folder `name` as an artifact of that kind."""
        bound = {"run_id": self.run_id, "config_hash": self.config_hash}
        return seal_artifact(self.folder / name, name, files, parents, {**bound, **meta})

    def seal_run(self, parents: Sequence[Artifact], meta: Mapping[str, Any]) -> Artifact:
        """Seal the whole run: its config, its record, and the artifacts that it ends in."""
        bound = {"run_id": self.run_id, "config_hash": self.config_hash}
        files = (CONFIG_FILE, RUN_FILE)
        return seal_artifact(self.folder, "run", files, parents, {**bound, **meta})

    def finished(self, name: str) -> Artifact | None:
        """The sealed artifact `name` of this run, or None. Raises IntegrityError if it was changed."""
        folder = self.folder / name
        return read_artifact(folder) if (folder / MANIFEST).is_file() else None

    def close(self) -> None:
        """Give the folder free."""
        self._lock.release()

    def __enter__(self) -> RunHome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _take_lock(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise RunMismatchError(
                f"another process is working in {self.folder}; wait for it, stop it, or choose "
                "another run.output_dir",
                differences=[],
            ) from error
        except OSError as error:
            raise storage_error(self.folder, error) from error

    def _refuse_other_config(self, known: Mapping[str, Any], differences: Sequence[str]) -> None:
        if known["config_hash"] != self.config_hash:
            raise self._mismatch(differences)
        if self._given_run_id not in (None, known["run_id"]):
            raise self._mismatch([f"run: {known['run_id']} -> {self._given_run_id}"])

    def _mismatch(self, differences: Sequence[str]) -> RunMismatchError:
        listed = "\n".join(f"  - {line}" for line in differences)
        return RunMismatchError(
            f"{self.folder} holds a run that was started otherwise:\n{listed}\n"
            "Go back to those values to resume it, or choose a new run.output_dir.",
            differences=list(differences),
        )

    def _new_record(self) -> dict[str, Any]:
        return {
            "run_id": self._given_run_id or str(uuid.uuid4()),
            "config_hash": self.config_hash,
            "config": self.config_values,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    @staticmethod
    def _environments(known: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Every environment that worked on the run, each once, in order."""
        seen: list[dict[str, Any]] = list((known or {}).get("environments", []))
        return seen if environment() in seen else [*seen, environment()]

    def _save(self) -> None:
        write_json(self.folder / RUN_FILE, self.record)
