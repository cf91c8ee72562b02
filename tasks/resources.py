"""What a process keeps between tasks: the loaded model with its engine, and the open generation.

Neither can travel through a task result, and loading takes seconds; tasks name what they need by the
config and find it here.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import EngineSection, ModelSection
from core.progress import ProgressEvent, emit
from core.settings import get_settings

if TYPE_CHECKING:
    from core.engines.transformers import TransformersEngine
    from core.generation.loop import Generation


@lru_cache(maxsize=1)
def engine_for(model: ModelSection, engine: EngineSection) -> TransformersEngine:
    """The engine over the configured model, loaded once in this process."""
    from core.engines.transformers import TransformersEngine
    from core.models.loader import load_model
    from core.models.spec import ModelSpec

    spec = ModelSpec(
        source=model.source,
        revision=model.revision,
        bos=model.bos,
        quantization=model.quantization,
        dtype=model.dtype,
        device=model.device,
    )
    loaded = load_model(
        spec,
        cache_dir=get_settings().model_cache_dir,
        on_event=lambda message: emit(ProgressEvent("model", message)),
    )
    return TransformersEngine(loaded, engine.batch_size, engine.prefill_tokens)


_generations: dict[Path, Generation] = {}


def keep_generation(folder: Path, generation: Generation) -> None:
    """Keep an open generation for the next task of this process."""
    _generations[folder] = generation


def kept_generation(folder: Path) -> Generation | None:
    """The open generation of a folder, if this process has one."""
    return _generations.get(folder)


def forget_generation(folder: Path) -> None:
    """Drop an open generation; the next task reads it again from its journal."""
    _generations.pop(folder, None)
