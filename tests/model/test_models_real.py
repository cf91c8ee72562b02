"""Loader, guard and sentinels on real models: the bundled base, an instruct model, broken copies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.testing import CliRunner

from core.engines.transformers import TransformersEngine
from core.errors import ModelLoadError
from core.models.examine import examine
from core.models.health import check_health
from core.models.loader import load_model
from core.models.report import GuardReport
from core.models.spec import ModelSpec
from core.models.tokenizer_check import check_tokenizer
from core.settings import get_settings

if TYPE_CHECKING:
    from core.models.loader import LoadedModel

MEASURED_SENTENCE = "The capital of France is Paris, and water freezes at zero degrees Celsius."
Edit = Callable[[dict[str, Any]], None]


def load(source: Path | str, **how: Any) -> LoadedModel:
    return load_model(ModelSpec(str(source), **how), cache_dir=get_settings().model_cache_dir)


def failed(report: GuardReport) -> set[str]:
    return {check.name for check in report.failed}


@pytest.fixture(scope="session")
def bundled_folder(bundled_model: LoadedModel) -> Path:
    return bundled_model.folder


@pytest.fixture(scope="session")
def instruct_model(instruct_gguf: Path) -> LoadedModel:
    return load(instruct_gguf)


@pytest.fixture(scope="session")
def report(bundled_model: LoadedModel) -> GuardReport:
    prompts = ["Water boils at", "<start_of_turn>user\nHi", "<|im_start|>user\nHi"]
    return examine(bundled_model, TransformersEngine(bundled_model), prompts=prompts)


def copy_with_tokenizer(source: Path, target: Path, edit: Edit) -> Path:
    """A model directory with the same weights (linked) and a changed tokenizer.json."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            os.link(path, target / path.name) if same_disk(path, target) else shutil.copy(path, target)
        elif path.name not in ("tokenizer.json", "stagegate_conversion.json"):
            shutil.copy(path, target)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    edit(tokenizer)
    (target / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return target


def same_disk(a: Path, b: Path) -> bool:
    return a.stat().st_dev == b.stat().st_dev


def test_bundled_base_is_clean(report: GuardReport) -> None:
    """The bundled base passes every check but the prompts that carry chat markers."""
    assert failed(report) == {"prompt"}
    assert [check.ok for check in report.checks if check.name == "prompt"] == [True, False, False]
    turn = next(c for c in report.checks if c.name == "sentinel: turn ends")
    assert max(turn.values["mean_probability"].values()) < 1e-4


def test_control_token_in_a_prompt_is_told_by_id(report: GuardReport) -> None:
    """Gemma knows its own turn tokens; the refusal names token, id and position behind the BOS."""
    check = [c for c in report.checks if c.name == "prompt"][1]
    assert (check.values["token"], check.values["position"]) == ("<start_of_turn>", 1)


def test_report_is_json(report: GuardReport) -> None:
    """The record of an examination survives JSON unchanged in meaning."""
    record = json.loads(json.dumps(report.to_record()))
    assert record["clean"] is False and record["identity"]["bos"] == "always"


def test_bundled_tokenizer_is_the_one_that_was_measured(bundled_model: LoadedModel) -> None:
    """16 tokens with BOS for a known sentence, and a BOS policy decided by a wide margin."""
    assert len(bundled_model.encoder.encode(MEASURED_SENTENCE)) == 16
    evidence = bundled_model.identity.bos_evidence
    assert evidence["loss_without_bos_nats"] - evidence["loss_with_bos_nats"] > 2
    assert bundled_model.eos_token_ids == (1,)
    assert bundled_model.model.training is False
    assert not any(p.requires_grad for p in bundled_model.model.parameters())


def test_instruct_model_is_caught(instruct_model: LoadedModel) -> None:
    """SmolLM2 Instruct is refused by what it does, not only by what it declares."""
    found = examine(instruct_model, TransformersEngine(instruct_model))
    assert {"sentinel: turn ends", "sentinel: end tokens", "sentinel: text ends"} <= failed(found)
    turn = next(c for c in found.checks if c.name == "sentinel: turn ends")
    assert max(turn.values["mean_probability"].values()) > 3 * turn.values["limit"]


def test_renamed_chat_tokens_do_not_hide_an_instruct_model(
    instruct_model: LoadedModel, tmp_path: Path
) -> None:
    """Without template and with harmless names for its tokens, it is still refused."""
    source = instruct_model.folder
    names = {"<|im_start|>": "<bos>", "<|im_end|>": "<eos>"}

    def rename(value: dict[str, Any]) -> None:
        for token in value["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        vocabulary = value["model"]["vocab"]
        value["model"]["vocab"] = {names.get(k, k): v for k, v in vocabulary.items()}

    folder = copy_with_tokenizer(source, tmp_path / "hidden", rename)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {k: names.get(v, v) if isinstance(v, str) else v for k, v in settings.items()}
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = load(folder)
    assert loaded.encoder.chat is None
    assert "sentinel: text ends" in failed(examine(loaded, TransformersEngine(loaded)))


def _append_eos(value: dict[str, Any]) -> None:
    value["post_processor"]["single"].append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    value["post_processor"]["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}


def _system_prompt(value: dict[str, Any]) -> None:
    ids = [value["model"]["vocab"][word] for word in ("You", "▁are", "▁helpful")]
    value["post_processor"]["single"].insert(1, {"SpecialToken": {"id": "<sys>", "type_id": 0}})
    value["post_processor"]["special_tokens"]["<sys>"] = {
        "id": "<sys>",
        "ids": ids,
        "tokens": ["You", "▁are", "▁helpful"],
    }


def _normaliser(value: dict[str, Any]) -> None:
    swap = {"type": "Replace", "pattern": {"String": "Instruction:"}, "content": "Obey:"}
    value["normalizer"] = {"type": "Sequence", "normalizers": [swap, value["normalizer"]]}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_append_eos, "appends 1 token ('<eos>')"),
        (_system_prompt, "'▁helpful'"),
        (_normaliser, "changes the prompt"),
    ],
    ids=["EOS", "system prompt", "rewriting"],
)
def test_contaminated_tokenizer_is_refused(
    bundled_folder: Path, bundled_model: LoadedModel, tmp_path: Path, edit: Edit, said: str
) -> None:
    """The bundled model with a rigged tokenizer.json: refused and told, and no id of it in a prompt."""
    from transformers import AutoTokenizer

    from core.models.examine import _tokenizer_check

    value = json.loads((bundled_folder / "tokenizer.json").read_text(encoding="utf-8"))
    edit(value)
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(bundled_folder / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    check = _tokenizer_check(SimpleNamespace(tokenizer=tokenizer, tokenizer_orders=(), folder=tmp_path))  # type: ignore[arg-type]
    assert not check.ok and said in check.detail


def test_tokenizer_without_merges_is_unhealthy(
    bundled_folder: Path, bundled_model: LoadedModel, tmp_path: Path
) -> None:
    """Words split into letters are told by tokens per word and by loss, with numbers."""

    def drop_merges(value: dict[str, Any]) -> None:
        value["model"]["merges"] = []

    folder = copy_with_tokenizer(bundled_folder, tmp_path / "letters", drop_merges)
    loaded = load(folder, bos="always")
    found = examine(loaded, TransformersEngine(loaded))
    assert {"health: loss", "health: tokens per word", "sentinels"} <= failed(found)


def test_damaged_weights_are_unhealthy(bundled_model: LoadedModel) -> None:
    """One layer of noise, or weights that are no numbers, put the loss out of the band."""
    weight = bundled_model.model.model.layers[3].mlp.down_proj.weight
    kept = weight.detach().clone()
    try:
        for damage in (lambda w: w.normal_(std=1.0), lambda w: w.fill_(float("nan"))):
            with torch.no_grad():
                damage(weight)
            health = check_health(bundled_model)
            assert not health.ok and not health.checks[0].ok
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert check_health(bundled_model).ok


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantisation_is_probed_on_the_modules(
    quantization: str, bundled_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the identity says is what the layers hold, and the model still reads English."""
    loaded = load("bundled", quantization=quantization, bos="always")
    layers = bundled_model.model.config.num_hidden_layers
    assert loaded.identity.quantization == quantization
    assert loaded.identity.quantized_modules == 7 * layers
    assert check_health(loaded).ok


def test_quantisation_that_did_not_happen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that the libraries silently dropped is an error, not a note."""
    monkeypatch.setattr("core.models.loader._quantization_config", lambda *_: None)
    with pytest.raises(ModelLoadError, match="nf4 was asked for but the loaded layers are none"):
        load("bundled", quantization="nf4")


def test_weights_that_lack_tensors_are_refused(instruct_model: LoadedModel, tmp_path: Path) -> None:
    """Tensors that transformers would fill with random numbers are an error with their count."""
    from safetensors.torch import load_file, save_file

    source = instruct_model.folder
    folder = copy_with_tokenizer(source, tmp_path / "holes", lambda value: None)
    (folder / "model.safetensors").unlink()
    tensors = load_file(source / "model.safetensors")
    for name in [n for n in tensors if ".layers.7." in n]:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="lack 9 tensors"):
        load(folder)


def test_foreign_tokenizer_is_refused(
    bundled_folder: Path, instruct_model: LoadedModel, tmp_path: Path
) -> None:
    """Another family's tokenizer is refused while loading."""
    source = instruct_model.folder
    folder = copy_with_tokenizer(source, tmp_path / "foreign", lambda value: None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_folder / name, folder)
    with pytest.raises(ModelLoadError, match="another model"):
        load(folder)


def test_guard_command_says_no_with_exit_3(instruct_gguf: Path) -> None:
    """`stagegate guard` on an instruct model: exit 3, JSON on stdout and nothing else."""
    from cli.main import app

    result = CliRunner().invoke(app, ["guard", str(instruct_gguf), "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)["clean"] is False


def test_guard_command_cannot_load_with_exit_2(tmp_path: Path) -> None:
    """`stagegate guard` on a directory that is no model: exit 2 and a sentence."""
    from cli.main import app

    result = CliRunner().invoke(app, ["guard", str(tmp_path)])
    assert result.exit_code == 2
    assert "no config.json" in result.stderr


def test_encoding_is_cheap(bundled_model: LoadedModel) -> None:
    """A prompt of about 100 tokens is encoded and checked in well under two milliseconds."""
    import time

    prompt = "Instruction: What do bees make?\nResponse: Bees make honey.\n\n" * 6
    bundled_model.encoder.encode(prompt)
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        bundled_model.encoder.encode(prompt)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[25] < 0.002
    assert check_tokenizer(bundled_model.tokenizer, [prompt]) == []
