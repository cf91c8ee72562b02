"""Artifacts: a folder with files, and a manifest written last that hashes them and names its parents.

A folder without `manifest.json` is not an artifact: a stage that died before its end left nothing.
`verify` walks from one artifact to its oldest ancestor and names the first link that is broken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import BadInputError, IntegrityError
from core.files import sha256_file, sha256_json, write_json
from core.provenance.environment import environment

MANIFEST = "manifest.json"
SELF_HASH = "self_sha256"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, kind, the manifest's own hash and the hash of its content."""

    path: Path
    kind: str
    manifest_sha256: str
    content_sha256: str


def seal_artifact(
    folder: Path,
    kind: str,
    files: Sequence[str],
    parents: Sequence[Artifact],
    meta: Mapping[str, Any],
) -> Artifact:
    """Hash the files of a folder, name the parents, and write the manifest last.

    Raises:
        StorageError: the manifest cannot be written.
    """
    hashed = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in sorted(files)
    }
    body: dict[str, Any] = {
        "kind": kind,
        "files": hashed,
        "content_sha256": sha256_json({name: entry["sha256"] for name, entry in hashed.items()}),
        "parents": [
            {
                "kind": parent.kind,
                "path": os.path.relpath(parent.path, folder),
                "manifest_sha256": parent.manifest_sha256,
            }
            for parent in parents
        ],
        "meta": dict(meta),
        "environment": environment(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / MANIFEST, body | {SELF_HASH: sha256_json(body)})
    return read_artifact(folder)


def read_artifact(folder: Path) -> Artifact:
    """The artifact of a folder, its manifest checked against itself but not its files.

    Raises:
        BadInputError: no manifest there.
        IntegrityError: the manifest was changed after it was written, or is no manifest.
    """
    manifest = read_manifest(folder)
    return Artifact(folder, manifest["kind"], manifest[SELF_HASH], manifest["content_sha256"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises as `read_artifact`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInputError(
            f"{folder} holds no {MANIFEST}: it is not a finished artifact; "
            "give a run's folder, or one of the folders in it",
            path=str(folder),
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        body = {key: value for key, value in manifest.items() if key != SELF_HASH}
        intact = manifest[SELF_HASH] == sha256_json(body)
        missing = {"kind", "files", "content_sha256", "parents"} - body.keys()
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise IntegrityError(f"{path} is not a readable manifest: {error}", path=str(path)) from error
    if not intact or missing:
        raise IntegrityError(
            f"{path} was changed after it was written: its own hash does not match its content",
            path=str(path),
        )
    return dict(manifest)


@dataclass(frozen=True)
class VerifiedLink:
    """One artifact that held: where, what, how many files."""

    path: Path
    kind: str
    files: int


def verify(folder: Path) -> list[VerifiedLink]:
    """Re-check an artifact and all its ancestors, oldest first in the result.

    Raises:
        IntegrityError: the first broken link: a changed, missing or unlisted file, a changed manifest,
            a parent that is not the one that was used.
        BadInputError: the folder itself is not an artifact.
    """
    return list(_verified(folder.absolute(), set()))


def _verified(folder: Path, seen: set[Path]) -> Iterable[VerifiedLink]:
    if folder in seen:
        return
    seen.add(folder)
    manifest = read_manifest(folder)
    for parent in manifest["parents"]:
        parent_folder = Path(os.path.normpath(folder / parent["path"]))
        yield from _verified_parent(folder, parent_folder, parent, seen)
    _check_files(folder, manifest)
    yield VerifiedLink(folder, manifest["kind"], len(manifest["files"]))


def _verified_parent(
    child: Path, folder: Path, expected: Mapping[str, Any], seen: set[Path]
) -> Iterable[VerifiedLink]:
    if not (folder / MANIFEST).is_file():
        raise IntegrityError(
            f"{child} was made from the {expected['kind']} artifact {folder}, which is not there any more",
            path=str(folder),
        )
    found = read_manifest(folder)[SELF_HASH]
    if found != expected["manifest_sha256"]:
        raise IntegrityError(
            f"{child} was made from another {expected['kind']} artifact than the one in {folder}: its "
            f"manifest has hash {found[:12]}, {expected['manifest_sha256'][:12]} was used",
            path=str(folder),
        )
    yield from _verified(folder, seen)


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; the manifest lists it", path=str(path))
        found = sha256_file(path)
        if found != entry["sha256"]:
            raise IntegrityError(
                f"{path} was changed: its sha256 is {found[:12]}, the manifest says {entry['sha256'][:12]} "
                f"({path.stat().st_size} bytes now, {entry['bytes']} then)",
                path=str(path),
            )
    listed = {*manifest["files"], MANIFEST}
    extra = sorted(
        p.name
        for p in folder.iterdir()
        if p.is_file() and p.name not in listed and not p.name.startswith(".")
    )
    if extra:
        raise IntegrityError(
            f"{folder} holds files that its manifest does not list: {', '.join(extra)}",
            path=str(folder),
        )
