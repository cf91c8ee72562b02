"""Model files that are missing, cut short or of another kind, told from the files alone."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.errors import ConfigError, ModelLoadError
from core.models.convert import RECORD_FILE, converted_gguf
from core.models.disk import check_directory
from core.models.gguf_file import read_header
from core.models.hub import looks_like_hub_id
from core.models.identity import weights_sha256
from core.models.sources import locate
from core.models.spec import ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros((8, 8), dtype=np.float32)}, made / "model.safetensors")
    return made


def test_whole_directory_gives_its_weights(folder: Path) -> None:
    """A directory with config, tokenizer and whole weights passes."""
    assert [p.name for p in check_directory(folder)] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
    ],
)
def test_missing_file_is_named(folder: Path, name: str, said: str) -> None:
    """Each file that a model needs is missed by name, with a next step."""
    (folder / name).unlink()
    with pytest.raises(ModelLoadError, match=said) as refused:
        check_directory(folder)
    assert "again" in str(refused.value)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_cut_weights_are_refused(folder: Path, keep: int) -> None:
    """A safetensors file is refused wherever the download stopped, the last byte included."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(ModelLoadError, match=r"safetensors header|half-downloaded"):
        check_directory(folder)


def test_missing_shards_are_counted(folder: Path) -> None:
    """An index that names absent shards says how many and which."""
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelLoadError, match="lacks 2 of 3") as refused:
        check_directory(folder)
    assert refused.value.values["missing"] == ["model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", '{"a": ', "cannot be read"),
        ("config.json", "[]", "JSON object"),
        ("config.json", '{"quantization_config": {"quant_method": "gptq"}}', "gptq"),
        ("tokenizer.json", '{"model": {"vo', "cut short"),
        ("adapter_config.json", "{}", "PEFT adapter"),
        ("model.safetensors.incomplete", "", "unfinished download"),
        (".cache/huggingface/download/x.incomplete", "", "unfinished download"),
    ],
)
def test_unusable_file_is_refused(folder: Path, name: str, text: str, said: str) -> None:
    """Broken JSON, foreign quantisation, adapters and unfinished downloads are told apart."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(ModelLoadError, match=said):
        check_directory(folder)


def test_directory_of_a_gguf_file_points_at_it(folder: Path) -> None:
    """Someone who gives the folder of a GGUF file is told to give the file."""
    (folder / "model.safetensors").unlink()
    (folder / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match=r"some\.gguf"):
        check_directory(folder)


def gguf_bytes() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    pairs += text("sizes") + struct.pack("<IIQ", 9, 4, 3) + bytes(12)
    tensor = text("w") + struct.pack("<IQQIQ", 2, 4, 8, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 3) + pairs + tensor
    return head + bytes(-len(head) % 32) + bytes(4 * 8 * 4)


def test_gguf_header_gives_the_length_that_the_file_must_have(tmp_path: Path) -> None:
    """Architecture and exact length are read from the header; any cut is refused."""
    path = tmp_path / "m.gguf"
    whole = gguf_bytes()
    path.write_bytes(whole)
    assert read_header(path).architecture == "llama"
    assert read_header(path).size_bytes == len(whole)
    for keep in (6, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(ModelLoadError, match=r"half-downloaded|cut short"):
            read_header(path)


@pytest.mark.parametrize("start", [b"", b"vers", b"<htm", b"GGML"])
def test_gguf_with_wrong_magic_is_refused(tmp_path: Path, start: bytes) -> None:
    """A pointer file, a web page or an old format in a GGUF file's place is named as such."""
    path = tmp_path / "m.gguf"
    path.write_bytes(start)
    with pytest.raises(ModelLoadError, match="not a GGUF file"):
        locate(ModelSpec(str(path)), tmp_path, print)


def test_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A GGUF file of an unknown kind is refused in words, and no half directory stays behind."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes())
    cache = tmp_path / "cache"
    with pytest.raises(ModelLoadError, match="cannot be converted"):
        locate(ModelSpec(str(path)), cache, lambda _: None)
    assert [p for p in cache.iterdir() if p.is_dir()] == []


def test_finished_conversion_is_reused_and_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    """The cache is trusted only while every recorded file has its length."""
    asked = []

    def missing(folder: Path) -> Path:
        asked.append(folder)
        raise ModelLoadError("asked to convert")

    with pytest.raises(ModelLoadError, match="asked to convert"):
        converted_gguf("f" * 64, tmp_path, missing, print)
    target = Path(str(next(tmp_path.glob("gguf-*.lock")))[: -len(".lock")])
    target.mkdir()
    (target / "w").write_bytes(b"12345")
    record = {"gguf_sha256": "f" * 64, "files": {"w": {"sha256": "0", "bytes": 5}}}
    (target / RECORD_FILE).write_text(json.dumps(record))
    assert converted_gguf("f" * 64, tmp_path, missing, print) == target
    (target / "w").write_bytes(b"123")
    with pytest.raises(ModelLoadError, match="asked to convert"):
        converted_gguf("f" * 64, tmp_path, missing, print)
    assert len(asked) == 2


def test_changed_conversion_is_refused_by_its_hash(folder: Path) -> None:
    """A converted weight file of the right length and another content is not loaded."""
    path = folder / "model.safetensors"
    entry = {"sha256": "0" * 64, "bytes": path.stat().st_size}
    (folder / RECORD_FILE).write_text(json.dumps({"files": {path.name: entry}}))
    with pytest.raises(ModelLoadError, match="changed after it was converted"):
        weights_sha256([path], print)


@pytest.mark.parametrize(
    "spec",
    [
        {"source": " "},
        {"source": "x", "bos": "sometimes"},
        {"source": "x", "quantization": "nf8"},
        {"source": "x", "dtype": "float8"},
        {"source": "bundled", "revision": "main"},
    ],
)
def test_impossible_spec_is_refused(spec: dict[str, str]) -> None:
    """Values outside the choices are refused when the spec is made."""
    with pytest.raises(ConfigError):
        ModelSpec(**spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["/no/such/dir", "../up", "a/b/c", "~nobody/x y"])
def test_source_that_is_nowhere_is_refused_without_the_network(source: str, tmp_path: Path) -> None:
    """What cannot be a hub id is refused at once."""
    assert not looks_like_hub_id(source)
    with pytest.raises(ModelLoadError, match="no model at"):
        locate(ModelSpec(source), tmp_path, print)


def test_hub_id_offline_is_refused_in_words(tmp_path: Path) -> None:
    """Offline, a model that is not in the cache is a sentence with a next step, and soon."""
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE") as refused:
        locate(ModelSpec("nobody/no-such-model"), tmp_path, print)
    assert "directory" in str(refused.value)


def test_help_does_not_import_torch() -> None:
    """The guard command's module costs no heavy import."""
    code = "import sys, cli.guard; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
