"""What is asked for when a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from core.errors import ConfigError

BUNDLED = "bundled"
TINY = "tiny"

Bos = Literal["auto", "always", "never"]
Quantization = Literal["none", "nf4", "int8"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]

_CHOICES = {"bos": Bos, "quantization": Quantization, "dtype": Dtype, "device": Device}


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how to load it.

    `source` is `bundled`, `tiny`, a local directory, a path ending in `.gguf`, or a hub id.
    `revision` is a branch, tag or commit and only means something for a hub id. dtype `auto` is
    float32 on CPU and bfloat16 on CUDA; device `auto` is CUDA where there is one.

    Raises:
        ConfigError: a value that is not one of the choices, an empty source, or a combination that
            cannot work; every problem is in the message.
    """

    source: str
    revision: str | None = None
    bos: Bos = "auto"
    quantization: Quantization = "none"
    dtype: Dtype = "auto"
    device: Device = "auto"

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(choices))}"
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in get_args(choices)
        ]
        if not self.source.strip():
            problems.append(
                f"the model source is empty; give {BUNDLED!r}, a directory, a .gguf file or a hub id"
            )
        if self.revision is not None and self.source in (BUNDLED, TINY):
            problems.append(f"a revision makes no sense for {self.source!r}; leave it out")
        if self.quantization == "int8" and self.dtype == "float32" and self.device == "cuda":
            problems.append("int8 on CUDA computes in 16 bits; use dtype bfloat16, float16 or auto")
        if problems:
            raise ConfigError("; ".join(problems), problems=problems)
