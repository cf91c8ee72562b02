"""The one way to a base model: checked files, plain weights, no chat template, a guarded encoder.

    load_model(spec, cache_dir=...) -> LoadedModel

Nothing else in the project constructs a tokenizer or a model, and `trust_remote_code` is never on.
Whether the model is healthy and a base model is `core.models.examine`'s question, asked afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ModelLoadError, StagegateError
from core.models.bos import BosChoice, choose_bos
from core.models.guard import GuardedEncoder
from core.models.identity import (
    ModelIdentity,
    package_versions,
    probe_dtype,
    probe_quantization,
    tokenizer_sha256,
    weights_sha256,
)
from core.models.quiet import first_line, quiet
from core.models.sources import LocalModel, locate
from core.models.spec import ModelSpec
from core.models.tokenizer_check import require_ids_in, standing_orders

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FALLBACK_CONTEXT_TOKENS = 2048
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


@dataclass
class LoadedModel:
    """A model ready for engines: eval mode, gradients off, SDPA attention.

    `folder` is the directory that was loaded. `tokenizer_orders` are cutting and padding that the
    tokenizer file switches on, in sentences; the encoder ignores them, the examination reports them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoder: GuardedEncoder
    eos_token_ids: tuple[int, ...]
    max_context_tokens: int
    device: str
    identity: ModelIdentity
    folder: Path
    tokenizer_orders: tuple[str, ...] = ()


def load_model(
    spec: ModelSpec, *, cache_dir: Path, on_event: Callable[[str], None] | None = None
) -> LoadedModel:
    """Load the model that `spec` names.

    Args:
        cache_dir: where conversions of GGUF files are kept.
        on_event: told in a sentence what takes long.

    Raises:
        ModelLoadError: missing, half-downloaded, damaged, tokenizer of another model, quantised
            otherwise than asked, or not loadable on this machine.
        ConfigError: a BOS policy that the tokenizer cannot follow.
        StorageError: the cache cannot be written.
    """
    tell = on_event or (lambda message: None)
    device = _device(spec)
    local = locate(spec, cache_dir, tell)
    digest = weights_sha256(local.weights, tell)
    with quiet(), _load_words(spec.source):
        tokenizer = _load_tokenizer(local.folder)
        orders = tuple(standing_orders(tokenizer))
        tell(f"loading {spec.source} on {device}")
        model = _load_weights(spec, local, device)
    require_ids_in(tokenizer, int(model.get_input_embeddings().weight.shape[0]))
    bos = choose_bos(spec.bos, model, tokenizer, device)
    identity = _identity(spec, local, model, tokenizer, device, bos, digest)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        encoder=GuardedEncoder(tokenizer, bos.bos_id),
        eos_token_ids=identity.eos_token_ids,
        max_context_tokens=identity.max_context_tokens,
        device=device,
        identity=identity,
        folder=local.folder,
        tokenizer_orders=orders,
    )


def _device(spec: ModelSpec) -> str:
    import torch

    if spec.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError("device is cuda but this machine has no usable GPU; use cpu or auto")
    return spec.device


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _load_weights(spec: ModelSpec, local: LocalModel, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    automatic = "bfloat16" if device == "cuda" else "float32"
    dtype = getattr(torch, automatic if spec.dtype == "auto" else spec.dtype)
    model, info = AutoModelForCausalLM.from_pretrained(
        str(local.folder),
        dtype=dtype,
        attn_implementation="sdpa",
        quantization_config=_quantization_config(spec.quantization, dtype),
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    _refuse_partial(local.folder, info)
    found, _ = probe_quantization(model)
    if found != spec.quantization:
        raise ModelLoadError(
            f"quantization {spec.quantization} was asked for but the loaded layers are {found}; "
            + (
                "use a checkpoint that is not stored quantised"
                if found != "none"
                else "bitsandbytes left the layers as they are: check that it supports this device"
            ),
            asked=spec.quantization,
            found=found,
        )
    model.eval()
    model.requires_grad_(False)
    return model


def _quantization_config(quantization: str, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "int8" else None


def _refuse_partial(folder: Path, info: dict[str, Any]) -> None:
    """transformers fills missing weights with random numbers and only warns."""
    missing = sorted(map(str, info.get("missing_keys", ())))
    wrong = sorted(str(entry[0]) for entry in info.get("mismatched_keys", ()))
    if missing or wrong:
        names = [*missing, *wrong]
        raise ModelLoadError(
            f"the weights in {folder} lack {len(missing)} tensors and hold {len(wrong)} of another "
            f"shape (first: {names[0]}); config.json and weights do not belong together, or files are "
            "missing: download the model again",
            missing=missing,
            mismatched=wrong,
        )


def _identity(
    spec: ModelSpec,
    local: LocalModel,
    model: Any,
    tokenizer: Any,
    device: str,
    bos: BosChoice,
    digest: str,
) -> ModelIdentity:
    quantization, modules = probe_quantization(model)
    return ModelIdentity(
        source=spec.source,
        revision=local.revision,
        format=local.format,
        source_sha256=local.source_sha256,
        weights_sha256=digest,
        tokenizer_sha256=tokenizer_sha256(tokenizer, local.folder),
        architecture=type(model).__name__,
        n_params=int(model.num_parameters()),
        quantization=quantization,
        quantized_modules=modules,
        dtype=probe_dtype(model),
        device=device,
        bos=bos.policy,
        bos_token=None if bos.bos_id is None else tokenizer.convert_ids_to_tokens(bos.bos_id),
        bos_token_id=bos.bos_id,
        bos_evidence=bos.evidence,
        eos_token_ids=_eos_ids(model, tokenizer),
        max_context_tokens=_context_tokens(model, tokenizer),
        packages=package_versions(),
    )


def _eos_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End-of-text ids that tokenizer and generation config declare; none are added to them."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    listed = declared if isinstance(declared, list | tuple) else [declared]
    rows = int(model.get_input_embeddings().weight.shape[0])
    found = {int(i) for i in (tokenizer.eos_token_id, *listed) if i is not None and 0 <= i < rows}
    if not found:
        raise ModelLoadError(
            "neither the tokenizer nor generation_config.json names an end-of-text token, so nothing "
            "that the model writes would ever end; add eos_token to tokenizer_config.json"
        )
    return tuple(sorted(found))


def _context_tokens(model: Any, tokenizer: Any) -> int:
    """Most tokens of prompt and completion together, from the model's config."""
    config = model.config.get_text_config()
    for key in _CONTEXT_KEYS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = tokenizer.model_max_length
    return int(limit) if limit and limit < 10_000_000 else FALLBACK_CONTEXT_TOKENS


@contextmanager
def _load_words(source: str) -> Iterator[None]:
    """Any failure of the libraries below, in a sentence."""
    try:
        yield
    except StagegateError:
        raise
    except MemoryError as error:
        raise ModelLoadError(
            f"{source} does not fit into memory; use quantization nf4, or a smaller model"
        ) from error
    except Exception as error:
        words = first_line(error)
        if "out of memory" in words.lower():
            advice = "use quantization nf4 or int8, or a smaller model"
        elif "trust_remote_code" in str(error) or "auto_map" in str(error):
            advice = "it needs code from its authors, which stagegate never runs; use another model"
        else:
            advice = "its files may be damaged or of a kind that transformers does not know"
        raise ModelLoadError(f"{source} cannot be loaded: {words}; {advice}") from error
