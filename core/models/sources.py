"""From a model's source to a directory on this machine that is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelLoadError
from core.files import sha256_file
from core.models.bundled import bundled_directory
from core.models.convert import converted_gguf
from core.models.disk import check_directory
from core.models.gguf_file import read_header
from core.models.hub import hub_directory, looks_like_hub_id
from core.models.spec import BUNDLED, TINY, ModelSpec
from core.models.tiny import build_tiny_model

Event = Callable[[str], None]


@dataclass(frozen=True)
class LocalModel:
    """A whole model directory: its weight files, where it came from, and in which form.

    `format` is `safetensors`, `pytorch` or `gguf` (converted). `source_sha256` is the GGUF file's.
    """

    folder: Path
    weights: tuple[Path, ...]
    format: str
    revision: str | None = None
    source_sha256: str | None = None


def locate(spec: ModelSpec, cache_dir: Path, on_event: Event) -> LocalModel:
    """The directory that the source stands for, made or fetched where need be.

    Raises:
        ModelLoadError: missing, half-downloaded, or nothing that a model can be loaded from.
        StorageError: the cache cannot be written.
    """
    if spec.source == BUNDLED:
        folder, digest = bundled_directory(cache_dir, on_event)
        return _checked(folder, gguf_sha256=digest)
    if spec.source == TINY:
        return _checked(build_tiny_model(cache_dir / "tiny"))
    path = Path(spec.source).expanduser()
    if path.is_dir():
        _refuse_revision(spec)
        return _checked(path)
    if path.suffix.lower() == ".gguf" or path.is_file():
        _refuse_revision(spec)
        return _from_gguf(path, cache_dir, on_event)
    if looks_like_hub_id(spec.source):
        folder, commit = hub_directory(spec.source, spec.revision, on_event)
        return _checked(folder, revision=commit)
    raise ModelLoadError(
        f"there is no model at {spec.source}; give `bundled`, an existing directory, a .gguf file "
        "or a hub id such as owner/name"
    )


def _from_gguf(path: Path, cache_dir: Path, on_event: Event) -> LocalModel:
    read_header(path)
    digest = sha256_file(path)
    folder = converted_gguf(digest, cache_dir, lambda _: path.resolve(), on_event)
    return _checked(folder, gguf_sha256=digest)


def _checked(folder: Path, revision: str | None = None, gguf_sha256: str | None = None) -> LocalModel:
    weights = tuple(check_directory(folder))
    stored = "safetensors" if weights[0].suffix == ".safetensors" else "pytorch"
    kind = "gguf" if gguf_sha256 else stored
    return LocalModel(folder, weights, kind, revision, gguf_sha256)


def _refuse_revision(spec: ModelSpec) -> None:
    if spec.revision is not None:
        raise ModelLoadError(
            f"{spec.source} is a local file or directory, which has no revision; leave it out"
        )
