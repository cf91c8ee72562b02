"""Scores, corruptions, certification and margins, against hand-made and known answers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from core.critics.ab import LabelCritic
from core.critics.base import AcceptRule, CriticItem, Critique
from core.critics.certify import auroc_with_interval, certify, choose, fit_margin, load_labelled
from core.critics.corruption import CORRUPTIONS, LabelledItem, corrupt_half
from core.critics.likelihood import END_WEIGHT, LikelihoodCritic
from core.errors import DataFileError
from core.prompts.seeds import load_seeds
from tests.fakes import FakeEngine

PAIRS = [CriticItem(s.instruction, s.response) for s in load_seeds()]
SHOTS = (("s", "Say hi.", "Hi."),)


def silent(_: str, __: int) -> tuple[str, str]:
    return "", "eos"


def label_engine(lean: float, quality: float, mass: float = 0.9) -> FakeEngine:
    """Likes the letter A by `lean` nats, and the good label by `quality` where the text has GOOD."""

    def scores(prompt: str, ids: Sequence[int]) -> list[float]:
        good_is_a = "Label A marks a response that does" in prompt
        item = prompt.rsplit("Instruction:", 1)[1]
        value = quality if "GOOD" in item else -quality if "BAD" in item else 0.0
        toward_a = lean + (value if good_is_a else -value)
        known = {ord("A"): toward_a / 2, ord("B"): -toward_a / 2}
        out = []
        for token in ids:
            letter = token % 0x10000
            if letter in known:
                out.append(known[letter] + math.log(0.5))
            else:
                out.append(math.log((1 - mass) / mass / 48 + 1e-12))
        return out

    return FakeEngine(silent, next_scores=scores)


def test_prior_and_both_assignments_cancel_the_liking_for_a_letter() -> None:
    """A model that prefers `A` by 3 nats still scores a good and a bad pair by their quality alone."""
    critic = LabelCritic(label_engine(lean=3.0, quality=2.0), "pair")
    good, bad = critic.judge([CriticItem("x", "GOOD"), CriticItem("x", "BAD")])
    assert good.score == pytest.approx(2.0, abs=1e-5) and good.flip is False
    assert bad.score == pytest.approx(-2.0, abs=1e-5) and bad.flip is False


def test_a_critic_that_reads_only_the_letter_is_a_flip() -> None:
    """When swapping the labels changes the verdict, the critique says so and is rejected as a flip."""

    def scores(prompt: str, ids: Sequence[int]) -> list[float]:
        liked = 2.0 if "N/A" not in prompt.rsplit("Instruction:", 1)[1] else 0.0
        return [liked if t % 0x10000 == ord("A") else 0.0 for t in ids]

    (critique,) = LabelCritic(FakeEngine(silent, next_scores=scores), "pair").judge(PAIRS[:1])
    assert critique.flip is True
    assert AcceptRule(-100.0, 0.0, decides=True).rejection(critique) == "critic_flip"


def test_label_mass_is_of_the_labels_that_the_model_knows() -> None:
    """With most mass on other letters the critique is rejected for its format, not for its score."""
    engine = label_engine(lean=0.0, quality=5.0, mass=0.05)
    (critique,) = LabelCritic(engine, "pair").judge([CriticItem("x", "GOOD")])
    assert critique.label_mass_ratio is not None and critique.label_mass_ratio < 0.5
    assert AcceptRule(1.0, 0.5, decides=True).rejection(critique) == "critic_format"


def test_pmi_is_the_gain_from_the_instruction() -> None:
    """The pair score is log p with the instruction minus without, per token, plus the end term."""

    def tokens(context: str, _: str) -> float:
        return -1.0 if "Instruction: Sing.\n" in context else -3.5

    critic = LikelihoodCritic(FakeEngine(silent, token_scores=tokens), "pair", SHOTS)
    (critique,) = critic.judge([CriticItem("Sing.", "La la la.")])
    assert critique.kind == "pmi"
    assert critique.score == pytest.approx(2.5 + END_WEIGHT * -1.0)
    assert critique.flip is None and critique.label_mass_ratio is None


def test_instruction_likelihood_reads_the_list_and_the_end() -> None:
    """The instruction score is its log p in the task list plus the end term; nothing is subtracted."""
    critic = LikelihoodCritic(FakeEngine(silent, token_scores=lambda *_: -2.0), "instruction", SHOTS)
    (critique,) = critic.judge([CriticItem("Sing a song.")])
    assert critique.kind == "likelihood"
    assert critique.score == pytest.approx(-2.0 + END_WEIGHT * -2.0)
    assert "logprob_alone" not in critique.parts


def test_only_a_critic_can_build_a_critique() -> None:
    """Building a critique by hand, with any value for the seal, is a TypeError."""
    for seal in (None, object(), "seal"):
        with pytest.raises(TypeError, match="only a critic"):
            Critique(kind="ab", rubric_hash="x", score=9.0, seal=seal)  # type: ignore[arg-type]


def test_an_uninformative_critic_never_filters() -> None:
    """A rule that may not decide rejects nothing, however bad the score."""
    (critique,) = LabelCritic(label_engine(0.0, 4.0), "pair").judge([CriticItem("x", "BAD")])
    assert AcceptRule(1.0, 0.5, decides=False).rejection(critique) is None
    assert AcceptRule(1.0, 0.5, decides=True).rejection(critique) == "critic_margin"


@pytest.mark.parametrize("subject", ["pair", "instruction"])
def test_corruptions_change_the_text_and_use_every_kind(subject: str) -> None:
    """Half stay as they were, every corrupted item differs from its original, all kinds occur."""
    items = [CriticItem(p.instruction, p.response if subject == "pair" else None) for p in PAIRS]
    made = corrupt_half(items, subject, seed=5)
    originals = set(items)
    good = [m for m in made if m.good]
    bad = [m for m in made if not m.good]
    assert len(good) == len(items) // 2 and all(m.item in originals for m in good)
    assert {m.corruption for m in bad} == set(CORRUPTIONS[subject])
    assert all(m.item not in originals for m in bad)
    assert made == corrupt_half(items, subject, seed=5)


@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=30),
    st.lists(st.integers(-5, 5), min_size=2, max_size=30),
)
def test_auroc_agrees_with_scikit_learn(good: list[int], bad: list[int]) -> None:
    """The area equals scikit-learn's, ties included, and lies inside its interval."""
    a, b = np.array(good, float), np.array(bad, float)
    area, low, high = auroc_with_interval(a, b)
    labels = [1] * len(good) + [0] * len(bad)
    assert area == pytest.approx(roc_auc_score(labels, good + bad))
    assert 0 <= low <= area <= high <= 1


def test_auroc_interval_covers_the_truth() -> None:
    """Over 400 draws with a true AUROC of 0.76 the 95 % interval holds it in 91 to 99 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        _, low, high = auroc_with_interval(rng.normal(1, 1, 60), rng.normal(0, 1, 60))
        hits += low <= 0.7602 <= high
    assert 0.91 <= hits / 400 <= 0.99


def test_fitted_margin_is_the_smallest_that_is_precise_enough() -> None:
    """The margin reaches the target precision, and the next lower score does not."""
    rng = random.Random(0)
    good = np.array([rng.gauss(1.5, 1) for _ in range(80)])
    bad = np.array([rng.gauss(0, 1) for _ in range(80)])
    margin = fit_margin(good, bad, 0.9)
    assert margin is not None

    def precision(m: float) -> float:
        hits, slips = (good >= m).mean(), (bad >= m).mean()
        return float(hits / (hits + slips))

    assert precision(margin) >= 0.9
    lower = max(s for s in [*good, *bad] if s < margin)
    assert precision(lower) < 0.9
    assert fit_margin(np.array([0.0]), np.array([1.0]), 0.9) is None


def certificate(quality: float) -> object:
    engine = label_engine(lean=1.0, quality=quality)
    items = [LabelledItem(CriticItem(f"i{i}", "GOOD"), True) for i in range(20)]
    items += [LabelledItem(CriticItem(f"i{i}", "BAD"), False, "swap") for i in range(20)]
    return certify(
        LabelCritic(engine, "pair"),
        items,
        source="test",
        margin_nats=None,
        target_precision=0.9,
        min_auroc=0.7,
        min_label_mass_ratio=0.5,
    )


def test_a_blind_critic_is_uninformative_and_a_seeing_one_is_chosen() -> None:
    """A critic without signal may not decide; the one with signal is certified and chosen over it."""
    seeing, blind = certificate(2.0), certificate(0.0)
    assert seeing.informative and seeing.auroc == 1.0 and seeing.auroc_low < 1.0
    assert not blind.informative and blind.rule.decides is False
    assert choose([blind, seeing]) is seeing


def test_labelled_file_with_bad_lines_names_them(tmp_path: Path) -> None:
    """Human labels must be whole: every unusable line is named."""
    path = tmp_path / "labels.jsonl"
    rows = [{"instruction": "a", "response": "b", "good": True}, {"instruction": "a"}, {"good": 1}]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\nnot json")
    with pytest.raises(DataFileError, match="lines 2, 3, 4"):
        load_labelled(path, "pair")
