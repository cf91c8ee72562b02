"""Whether a model directory is whole, judged from its files alone, in milliseconds.

What is looked at: config.json, tokenizer files, the header of every safetensors file against its
length, every shard that an index names, leftovers of an unfinished download, PEFT adapters. Not
looked at: whether the weights are any good (`core.models.health`).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from core.errors import ModelLoadError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_AGAIN = "download or copy the model again"


def check_directory(folder: Path) -> list[Path]:
    """The weight files of a whole model directory, sorted.

    Raises:
        ModelLoadError: something is missing, cut short or of another kind; says what and what to do.
    """
    if not folder.is_dir():
        raise ModelLoadError(f"{folder} is not a directory; give a model's directory, {_AGAIN}")
    _refuse_unfinished(folder)
    _refuse_adapter(folder)
    config = read_json(folder, "config.json")
    if config is None:
        raise ModelLoadError(
            f"{folder} has no config.json, so it is not a model directory; {_AGAIN}, or give the "
            "directory that holds config.json"
        )
    _refuse_foreign_quantization(folder, config)
    weights = _weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelLoadError(f"{folder} has no tokenizer (looked for {', '.join(TOKENIZER_FILES)}); {_AGAIN}")
    _check_tokenizer_end(folder / "tokenizer.json")
    for path in weights:
        if path.suffix == ".safetensors":
            check_safetensors(path)
        elif path.stat().st_size == 0:
            raise ModelLoadError(f"{path} is empty; {_AGAIN}")
    return weights


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON object of the model directory, None where there is no such file.

    Raises:
        ModelLoadError: the file is there and cannot be read.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} does not hold a JSON object; {_AGAIN}")
    return value


def check_safetensors(path: Path) -> None:
    """Raise ModelLoadError unless the file is as long as its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0]
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelLoadError(
            f"{path} ({size:,} bytes) has no readable safetensors header: it is damaged, cut short or "
            f"a Git LFS pointer; {_AGAIN}"
        ) from error
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        raise ModelLoadError(
            f"{path} has {size:,} bytes but its header says {wanted:,}: it is half-downloaded or "
            f"damaged; {_AGAIN}",
            size_bytes=size,
            wanted_bytes=wanted,
        )


def _check_tokenizer_end(path: Path) -> None:
    """Whether the file ends as JSON does. Parsing the tens of MB of a large one takes seconds."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        if not file.read().rstrip().endswith(b"}"):
            raise ModelLoadError(f"{path} is cut short or not JSON; {_AGAIN}")


def _weight_files(folder: Path) -> list[Path]:
    for name in INDEXES:
        index = read_json(folder, name)
        if index is not None:
            return _shards(folder, name, index)
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = sorted(folder.glob(pattern))
        if found:
            return found
    ggufs = sorted(folder.glob("*.gguf"))
    hint = f"; it holds {ggufs[0].name}: give that file's path" if ggufs else f"; {_AGAIN}"
    raise ModelLoadError(f"{folder} has no weights (*.safetensors or pytorch_model.bin){hint}")


def _shards(folder: Path, name: str, index: dict[str, Any]) -> list[Path]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{folder / name} names no shards; {_AGAIN}")
    shards = sorted({folder / str(shard) for shard in weight_map.values()})
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ModelLoadError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files that {name} names "
            f"(first: {missing[0]}): it is half-downloaded; {_AGAIN}",
            missing=missing,
        )
    return shards


def _refuse_unfinished(folder: Path) -> None:
    leftovers = sorted(p.name for p in folder.iterdir() if p.name.endswith((".incomplete", ".part")))
    cache = folder / ".cache" / "huggingface" / "download"
    if cache.is_dir():
        leftovers += sorted(p.name for p in cache.rglob("*.incomplete"))
    if leftovers:
        raise ModelLoadError(
            f"{folder} holds an unfinished download ({leftovers[0]}); finish it, or delete that file "
            f"and {_AGAIN}",
            leftovers=leftovers,
        )


def _refuse_adapter(folder: Path) -> None:
    """transformers would quietly load an adapter on top of the base: not the model that was named."""
    if (folder / "adapter_config.json").is_file():
        raise ModelLoadError(
            f"{folder} holds a PEFT adapter (adapter_config.json), not a base model; give the base "
            "model's directory, or move the adapter elsewhere"
        )


def _refuse_foreign_quantization(folder: Path, config: dict[str, Any]) -> None:
    stored = config.get("quantization_config")
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    if method not in (None, "bitsandbytes"):
        raise ModelLoadError(
            f"the weights in {folder} are stored quantised by {method}; stagegate loads plain weights "
            "and quantises them itself (nf4, int8): use the unquantised model"
        )
