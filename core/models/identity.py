"""What was loaded, told from the loaded objects and the files' bytes, not from what was asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.errors import ModelLoadError
from core.files import sha256_file
from core.models.convert import recorded_hashes

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "bitsandbytes")
_HEX = frozenset("0123456789abcdef")
_LARGE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class ModelIdentity:
    """The loaded model, as it goes into manifests. JSON-able through `dataclasses.asdict`.

    `weights_sha256` covers name and bytes of every weight file that was loaded, `tokenizer_sha256`
    the tokenizer's whole serialised state. `quantization` and `dtype` are probed on the modules.
    `bos_evidence` holds the losses (nats per token) that decided `bos`, where they were measured.
    """

    source: str
    revision: str | None
    format: str
    source_sha256: str | None
    weights_sha256: str
    tokenizer_sha256: str
    architecture: str
    n_params: int
    quantization: str
    quantized_modules: int
    dtype: str
    device: str
    bos: str
    bos_token: str | None
    bos_token_id: int | None
    bos_evidence: dict[str, Any]
    eos_token_ids: tuple[int, ...]
    max_context_tokens: int
    packages: dict[str, str | None]


def weights_sha256(files: Sequence[Path], on_event: Callable[[str], None]) -> str:
    """One hex sha256 over names and contents of the weight files, in the order of their names.

    A hub download's file is a link to a blob that is named by its sha256, checked when it was
    downloaded; that name is taken. All other files are read.

    Raises:
        ModelLoadError: a converted file in the cache is not the one that was written.
    """
    size = sum(path.stat().st_size for path in files)
    if size > _LARGE_BYTES:
        on_event(f"hashing {size / 1e9:,.1f} GB of weights")
    known = recorded_hashes(files[0].parent)
    total = hashlib.sha256()
    for path in sorted(files, key=lambda p: p.name):
        digest = _blob_name(path) or sha256_file(path)
        if known.get(path.name, digest) != digest:
            raise ModelLoadError(
                f"{path} was changed after it was converted; delete the directory {path.parent} and "
                "run the same command again to convert it anew"
            )
        total.update(f"{path.name}\0{digest}\n".encode())
    return total.hexdigest()


def _blob_name(path: Path) -> str | None:
    if not path.is_symlink():
        return None
    name = path.resolve().name
    return name if len(name) == 64 and set(name) <= _HEX else None


def tokenizer_sha256(tokenizer: Any, folder: Path) -> str:
    """Hex sha256 of the tokenizer: its serialised state where it has one, else its files."""
    total = hashlib.sha256()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        total.update(backend.to_str().encode())
    else:
        for path in sorted(folder.glob("*")):
            if path.name.startswith(("tokenizer", "vocab", "merges", "spiece", "special_tokens")):
                total.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    total.update(json.dumps(special, sort_keys=True).encode())
    return total.hexdigest()


def probe_quantization(model: Any) -> tuple[str, int]:
    """(`none`, `nf4` or `int8`; how many linear layers carry it), counted on the loaded modules.

    Raises:
        ModelLoadError: several kinds at once, a kind that was never offered, or layers of which only
            the class is quantised and the weights are not.
    """
    kinds: dict[str, int] = {}
    for name, module in model.named_modules():
        kind = _kind(name, module)
        if kind is not None:
            kinds[kind] = kinds.get(kind, 0) + 1
    if not kinds:
        return "none", 0
    if len(kinds) > 1 or not set(kinds) <= {"nf4", "int8"}:
        raise ModelLoadError(
            f"the loaded layers are quantised as {kinds}; stagegate runs models in one of nf4, int8, none"
        )
    return next(iter(kinds.items()))


def _kind(name: str, module: Any) -> str | None:
    """Quantisation of one module from the type of its weights, None for plain ones."""
    family = type(module).__module__.split(".")[0]
    if family in ("torch", "transformers"):
        return None
    weight: Any = getattr(module, "weight", None)
    kind = type(weight).__name__
    if kind == "Params4bit":
        if not getattr(weight, "bnb_quantized", False):
            raise ModelLoadError(f"layer {name} should hold 4-bit weights but they are not quantised")
        return str(weight.quant_type)
    if kind == "Int8Params":
        if str(weight.dtype) != "torch.int8":
            raise ModelLoadError(f"layer {name} should hold 8-bit weights but they are {weight.dtype}")
        return "int8"
    return None if weight is None or weight.is_floating_point() else f"{family} {kind}"


def probe_dtype(model: Any) -> str:
    """Name of the type of most unquantised weights (`float32`, `bfloat16`, `float16`)."""
    counts: dict[str, int] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            name = str(parameter.dtype).removeprefix("torch.")
            counts[name] = counts.get(name, 0) + parameter.numel()
    return max(counts, key=lambda name: counts[name])


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that decide what a loaded model computes."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
