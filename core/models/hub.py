"""A hub model's files, brought here whole or refused in plain words, and never by a long wait."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import ModelLoadError
from core.models.quiet import first_line

_WANTED = ("*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt")
_TIMEOUT_S = 10.0
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def looks_like_hub_id(source: str) -> bool:
    """Whether a source could be a hub id (`owner/name`), going by its spelling."""
    return _REPO_ID.fullmatch(source) is not None and ".." not in source


def hub_directory(source: str, revision: str | None, on_event: Callable[[str], None]) -> tuple[Path, str]:
    """(directory of the downloaded snapshot, its commit).

    Offline, a snapshot that is already here is used. Weights come as safetensors where there are
    any, else as pytorch_model.bin; never both.

    Raises:
        ModelLoadError: no such model, no access, no network, or an unfinished download.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(source, revision=revision, timeout=_TIMEOUT_S)
        names = [str(sibling.rfilename) for sibling in info.siblings or ()]
        on_event(f"fetching {source} at {str(info.sha)[:12]} (files already here are reused)")
        return _snapshot(source, str(info.sha), _patterns(names))
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{source} asks for its terms to be accepted first: do that on its hub page, then set "
            "HF_TOKEN and try again"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(f"{source} has no revision {revision!r}; check its branches") from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"the hub has no model {source!r} (or it is private: then set HF_TOKEN); check the "
            "spelling, or give a local directory"
        ) from error
    except HFValidationError as error:
        raise ModelLoadError(f"{source!r} is no hub id, and there is no such directory") from error
    except OSError as error:
        if error.errno is not None:
            raise
        return _from_cache(source, revision, error)
    except Exception as error:
        return _from_cache(source, revision, error)


def _patterns(names: Sequence[str]) -> list[str]:
    safetensors = any("/" not in n and n.endswith(".safetensors") for n in names)
    return [*_WANTED, "*.safetensors" if safetensors else "pytorch_model*.bin"]


def _snapshot(source: str, commit: str, patterns: list[str]) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        source,
        revision=commit,
        allow_patterns=patterns,
        ignore_patterns=["*/*"],
        etag_timeout=_TIMEOUT_S,
    )
    return Path(folder), commit


def _from_cache(source: str, revision: str | None, cause: Exception) -> tuple[Path, str]:
    """The snapshot that is already here, or the network's failure in words."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except Exception:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        why = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be reached ({first_line(cause)})"
        raise ModelLoadError(
            f"{source} is neither a local directory nor in the local hub cache, and {why}; check the "
            "name and the network, or give the path of a directory that holds the model"
        ) from cause
    return folder, folder.name
