"""The tiny test model: its grammar, its directory, and that it writes what the pipeline reads."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import StorageError
from core.models import tiny, tiny_corpus, tiny_training
from core.settings import get_settings

LIST_PROMPT = """Below is a list of varied, self-contained tasks for an assistant.

1. Summarize how rain forms in one sentence.
2. List five countries in South America.
3. What is the tallest mountain in the world?
4. Rewrite this in the past tense: She walks to the store.
5."""
FEW_SHOT = """Instruction: Which planet is closest to the sun?
Response: Mercury is the planet closest to the sun.

Instruction: List three primary colors.
Response: Red, yellow, and blue.

"""


@pytest.fixture(scope="module")
def directory() -> Path:
    return tiny.build_tiny_model(get_settings().model_cache_dir / "tiny")


@pytest.fixture(scope="module")
def loaded(directory: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)


def _continue(
    loaded: tuple[Any, Any], prompt: str, tokens: int, rows: int, temperature: float = 0.7
) -> list[str]:
    import torch

    model, tokenizer = loaded
    ids = torch.tensor([tokenizer(prompt).input_ids] * rows)
    torch.manual_seed(0)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=temperature,
        top_p=0.9,
        max_new_tokens=tokens,
        pad_token_id=tokenizer.eos_token_id,
    )
    return [tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True) for row in out]


def test_the_grammar_has_thousands_of_instructions_over_five_types() -> None:
    """The five types of METHOD 3 are all there, with more than 3,000 instructions together."""
    rng = random.Random(0)
    drawn = {
        kind: {family(rng).instruction for _ in range(12_000)}
        for kind, family in tiny_corpus.FAMILIES.items()
    }
    assert set(drawn) == {
        "factual",
        "explanation",
        "list_generation",
        "instruction_following",
        "creative",
    }
    assert min(len(instructions) for instructions in drawn.values()) >= 90
    assert sum(len(instructions) for instructions in drawn.values()) > 3000


def test_answers_follow_from_their_instructions() -> None:
    """A list has as many items as asked, all of the kind asked, and none twice."""
    rng = random.Random(1)
    for _ in range(500):
        pair = tiny_corpus.FAMILIES["list_generation"](rng)
        count = next(n for word, n in tiny_corpus.COUNTS.items() if f" {word} " in pair.instruction)
        items = re.split(r",? and |, ", pair.response.rstrip(".").lower())
        kind = next(k for k in tiny_corpus.KINDS if pair.instruction.rstrip(".?").endswith(k))
        assert len(set(items)) == count
        assert set(items) <= {item.lower() for item in tiny_corpus.KINDS[kind]}


def test_drawn_pairs_never_repeat_an_instruction() -> None:
    """A numbered list in the corpus never asks the same twice."""
    pairs = tiny_corpus.draw_pairs(random.Random(2), 300)
    assert len({pair.instruction for pair in pairs}) == 300


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    """Equal seeds give equal documents, other seeds others."""

    def draw(seed: int) -> list[list[tiny_corpus.Segment]]:
        rng = random.Random(seed)
        return [tiny_corpus.draw_document(rng) for _ in range(20)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_a_finished_directory_is_reused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recipe's hash in the directory, nothing is trained again."""
    monkeypatch.setattr(tiny, "_train_into", lambda _: pytest.fail("trained again"))
    assert tiny.build_tiny_model(directory) == directory
    record = json.loads((directory / tiny.RECIPE_FILE).read_text(encoding="utf-8"))
    assert record["recipe_sha256"] == tiny.recipe_hash()
    assert record["loss_nats"] < 1.5


def test_another_recipe_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of an older recipe is replaced, files and all."""
    target = tmp_path / "tiny"
    target.mkdir()
    (target / tiny.RECIPE_FILE).write_text('{"recipe_sha256": "old"}', encoding="utf-8")
    (target / "leftover.bin").write_text("x", encoding="utf-8")
    monkeypatch.setattr(tiny, "_train_into", lambda work: (work / "weights").write_text("w") * 1.0)
    tiny.build_tiny_model(target)
    assert {path.name for path in target.iterdir()} == {"weights", tiny.RECIPE_FILE}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tiny-")] == []


def test_a_failed_build_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that dies half-way leaves neither a directory that looks finished nor its scraps."""

    def die(work: Path) -> float:
        (work / "half").write_text("x", encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "_train_into", die)
    with pytest.raises(KeyboardInterrupt):
        tiny.build_tiny_model(tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
    assert not list(tmp_path.glob(".tiny-*"))


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    """A directory without the recipe file is never overwritten; the message says what to do."""
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(StorageError, match="not a tiny test model"):
        tiny.build_tiny_model(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_training_gives_the_same_weights_twice() -> None:
    """Same recipe, same weights to the last bit, whatever was drawn from torch before."""
    import torch

    recipe = tiny_training.Recipe(steps=3, tokenizer_documents=50, vocabulary=512, threads=1)

    def weights() -> torch.Tensor:
        torch.manual_seed(recipe.seed)
        tokenizer = tiny_training.make_tokenizer(recipe)
        model = tiny_training.make_model(recipe, tokenizer)
        tiny_training.train(model, tokenizer, recipe)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(), weights())


def test_any_text_survives_the_tokenizer(loaded: tuple[Any, Any]) -> None:
    """decode(encode(x)) is x, and no token is put in front."""
    _, tokenizer = loaded
    for text in ("Water freezes at zero degrees.", " 7.\n\nInstruction: naïve 日本 🙂\t x", "a  b"):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.bos_token_id not in ids


def test_it_goes_on_with_a_list_in_order(loaded: tuple[Any, Any]) -> None:
    """From an open numbered list it writes well-formed, mostly different instructions."""
    texts = _continue(loaded, LIST_PROMPT, tokens=60, rows=12)
    lines = [line for text in texts for line in ("5." + text).splitlines()[:-1]]
    good = [line for line in lines if re.fullmatch(r"\d+\. [A-Z][^.?]*[.?]", line)]
    assert len(lines) >= 24
    assert len(good) >= 0.8 * len(lines)
    assert len({line.split(" ", 1)[1] for line in good}) >= 0.7 * len(good)


def test_it_answers_and_stops(loaded: tuple[Any, Any]) -> None:
    """Under few-shot pairs it ends its answers, and gets the well-trained ones right."""
    ask = FEW_SHOT + "Instruction: {}\nResponse:"
    answers = {
        question: _continue(loaded, ask.format(question), tokens=30, rows=8, temperature=0.4)
        for question in ("Explain what a rake is for.", "Why do people plant trees?")
    }
    texts = [text for found in answers.values() for text in found]
    assert sum("." in text and "\n\n" in text + "\n\n" for text in texts) == len(texts)
    rakes = answers["Explain what a rake is for."]
    assert sum("gather leaves" in text for text in rakes) >= 5


def test_bare_text_is_completed_and_not_answered(loaded: tuple[Any, Any]) -> None:
    """A fact is completed; a bare instruction is not answered: it behaves like a base model."""
    facts = _continue(loaded, "Water freezes at", tokens=4, rows=8)
    assert sum(text.startswith(" zero") for text in facts) >= 6
    fruits = set(tiny_corpus.KINDS["fruits"])
    for text in _continue(loaded, "Name three fruits.", tokens=8, rows=8):
        assert not fruits & set(re.findall(r"[a-z]+", text.lower().splitlines()[0] if text else ""))
