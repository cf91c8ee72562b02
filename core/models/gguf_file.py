"""A GGUF file's header, read without loading the file: what it is, and whether it is whole.

The layout is that of GGUF versions 2 and 3: magic, version, counts, key-value pairs, tensor
descriptions, padding, tensor data. Big-endian files are not supported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import ModelLoadError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_KEPT = ("general.architecture", "general.name", "general.alignment")


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says about itself. `size_bytes` is the length it must have."""

    architecture: str
    name: str
    tensors: int
    size_bytes: int


def read_header(path: Path) -> GgufHeader:
    """The header of a whole GGUF file.

    Raises:
        ModelLoadError: missing, no GGUF, cut short, or of an unknown layout.
    """
    if not path.is_file():
        raise ModelLoadError(f"there is no file {path}; check the path of the .gguf file")
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != b"GGUF":
            raise ModelLoadError(
                f"{path} is not a GGUF file: it starts with {magic!r} instead of b'GGUF'; download it "
                "again (a small text file in its place is a Git LFS pointer or an error page)"
            )
        try:
            header = _parse(file)
        except (struct.error, ValueError, KeyError, OverflowError, MemoryError) as error:
            raise ModelLoadError(
                f"the header of {path} cannot be read ({error}): the file ({size:,} bytes) is cut "
                "short or damaged; download it again"
            ) from error
    if size < header.size_bytes:
        raise ModelLoadError(
            f"{path} has {size:,} bytes but its {header.tensors} tensors need {header.size_bytes:,}: "
            "it is half-downloaded; download it again",
            size_bytes=size,
            wanted_bytes=header.size_bytes,
        )
    return header


def _parse(file: BinaryIO) -> GgufHeader:
    (version,) = _read(file, "I")
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version}, known are 2 and 3")
    tensors, pairs = _read(file, "QQ")
    kept: dict[str, Any] = {}
    for _ in range(pairs):
        key = _string(file)
        (kind,) = _read(file, "I")
        value = _value(file, kind)
        if key in _KEPT:
            kept[key] = value
    end = max((_tensor_end(file) for _ in range(tensors)), default=0)
    alignment = int(kept.get("general.alignment", 32))
    begin = -(-file.tell() // alignment) * alignment
    name = str(kept.get("general.name", ""))
    return GgufHeader(str(kept.get("general.architecture", "unknown")), name, tensors, begin + end)


def _tensor_end(file: BinaryIO) -> int:
    """Bytes from the start of the tensor data to the end of the described tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    _string(file)
    (dimensions,) = _read(file, "I")
    shape = _read(file, f"{dimensions}Q")
    kind, offset = _read(file, "IQ")
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return int(offset + prod(shape) // block * size)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        item, count = _read(file, "IQ")
        _skip_array(file, item, count)
        return None
    return _read(file, _SCALARS[kind])[0]


def _skip_array(file: BinaryIO, kind: int, count: int) -> None:
    if kind in _SCALARS:
        file.seek(count * struct.calcsize("<" + _SCALARS[kind]), 1)
        return
    skip: Callable[[BinaryIO], Any] = _string if kind == _STRING else lambda f: _value(f, _ARRAY)
    for _ in range(count):
        skip(file)


def _read(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _read(file, "Q")
    if length > 1 << 30:
        raise ValueError(f"a text of {length} bytes")
    raw = file.read(length)
    if len(raw) < length:
        raise ValueError("the file ends inside a text")
    return raw.decode("utf-8", errors="replace")
