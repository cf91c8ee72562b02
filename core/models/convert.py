"""GGUF files turned once into an ordinary model directory, and kept in the cache.

The weights are dequantised and stored as bfloat16, next to the tokenizer that transformers derives
from the file. A conversion is keyed by the file's sha256, by this module's version and by that of
transformers, because other versions have made broken tokenizers of the same file.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from core.errors import ModelLoadError, StorageError
from core.files import sha256_file
from core.models.gguf_file import read_header
from core.models.quiet import first_line, quiet

CONVERSION = 1
RECORD_FILE = "stagegate_conversion.json"
Event = Callable[[str], None]


def converted_gguf(
    file_sha256: str, cache_dir: Path, open_file: Callable[[Path], Path], on_event: Event
) -> Path:
    """Directory of the converted model: reused when it is whole, else made.

    Several processes may ask at once: one converts, the others wait. A conversion that is killed
    leaves only a hidden working directory, which the next one removes.

    Args:
        file_sha256: hex sha256 of the GGUF file; the key of the cache.
        open_file: called with a working directory when a conversion is needed; returns the GGUF file.

    Raises:
        ModelLoadError: the file cannot be converted.
        StorageError: the cache cannot be written.
    """
    from filelock import FileLock

    target = cache_dir / f"gguf-{file_sha256[:16]}-v{CONVERSION}-tf{version('transformers')}"
    if _is_whole(target, file_sha256):
        return target
    with _storage_words(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_whole(target, file_sha256):
                _remove_leftovers(target)
                _convert_and_rename(target, file_sha256, open_file, on_event)
    return target


def recorded_hashes(folder: Path) -> dict[str, str]:
    """Hex sha256 by file name, as written when a directory was converted; empty for other ones."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return {str(name): str(entry["sha256"]) for name, entry in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_whole(target: Path, file_sha256: str) -> bool:
    """Whether the conversion was finished and all its files still have their lengths."""
    try:
        record = json.loads((target / RECORD_FILE).read_text(encoding="utf-8"))
        lengths = {name: entry["bytes"] for name, entry in record["files"].items()}
        whole = all((target / name).stat().st_size == length for name, length in lengths.items())
        return bool(whole and lengths and record["gguf_sha256"] == file_sha256)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _remove_leftovers(target: Path) -> None:
    """Under the lock nobody else works here, so what lies around is from a conversion that died."""
    for leftover in (target, *target.parent.glob(f".{target.name}-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _convert_and_rename(
    target: Path, file_sha256: str, open_file: Callable[[Path], Path], on_event: Event
) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (work / "source").mkdir()
        (work / "model").mkdir()
        file = open_file(work / "source")
        header = read_header(file)
        on_event(
            f"converting {header.name or file.name} ({header.architecture}, "
            f"{header.size_bytes / 1e6:,.0f} MB) once; later starts reuse it"
        )
        _write_model(file, work / "model")
        files = {
            p.name: {"sha256": sha256_file(p), "bytes": p.stat().st_size}
            for p in sorted((work / "model").iterdir())
        }
        record = {
            "gguf_sha256": file_sha256,
            "conversion": CONVERSION,
            "transformers": version("transformers"),
            "files": files,
        }
        (work / "model" / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
        _sync(work / "model")
        (work / "model").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_model(file: Path, target: Path) -> None:
    """Dequantise and save. transformers will not save a model that it loaded from GGUF, a copy it will."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The dequantiser draws a progress bar that no switch turns off, across whatever is on the screen.
    with quiet(), redirect_stderr(StringIO()), _conversion_words(file):
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        ).to(torch.bfloat16)
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config.dtype = torch.bfloat16
        with torch.device("meta"):
            fresh = AutoModelForCausalLM.from_config(config)
        fresh.load_state_dict(loaded.state_dict(), assign=True)
        fresh.tie_weights()
        fresh.generation_config = loaded.generation_config
        fresh.save_pretrained(target)
        tokenizer.save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)


def _sync(folder: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _conversion_words(file: Path) -> Iterator[None]:
    """Turn what the libraries raise on an unknown or damaged file into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise _not_converted(file, error) from error
    except Exception as error:
        if "No space left" in str(error) or "os error 28" in str(error):
            raise OSError(28, "No space left on device") from error
        raise _not_converted(file, error) from error


def _not_converted(file: Path, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"{file.name} cannot be converted: {first_line(error)}; the file may be damaged, or its kind of "
        "model unknown to this version of transformers: use the model's original directory or hub id"
    )


@contextmanager
def _storage_words(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the converted model cannot be written to {cache_dir}: {error.strerror or error}; free "
            "some space (a conversion needs about four times the GGUF file's size), or "
            "set STAGEGATE_CACHE_DIR to another place",
            path=str(cache_dir),
        ) from error
