"""Detectors: certified on the golden file, total over any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataFileError
from core.qc.detectors import (
    DETECTORS,
    detect_all,
    detect_delimiter_leakage,
    detect_empty_or_echo,
    detect_runaway,
    detect_truncation,
    detect_unsafe,
)
from core.qc.golden import certify_detectors
from core.qc.rows import QCRow

GOLDEN = Path(__file__).parents[1] / "golden" / "detectors.jsonl"
TEXT = st.text(max_size=300) | st.text(alphabet="ab \n.,:-\"'`([{1.)<|>#*", max_size=300)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("split", [None, "dev", "held"])
def test_golden_precision_and_recall(detector: str, split: str | None) -> None:
    """Each detector reaches 0.9 precision and recall, on texts it was not tuned on too."""
    certificate = certify_detectors(GOLDEN, split=split)[detector]
    assert certificate.precision >= 0.9, certificate.wrongly_flagged
    assert certificate.recall >= 0.9, certificate.missed


def test_golden_file_is_large_enough() -> None:
    """The labelled file has at least 25 bad and 25 hard good texts per detector."""
    for certificate in certify_detectors(GOLDEN).values():
        assert certificate.positives >= 25
        assert certificate.negatives >= 25


def test_hazard_list_is_a_floor_only() -> None:
    """On hazards worded after the list was closed recall is poor, as documented; no false alarm."""
    certificate = certify_detectors(GOLDEN, split="blind")["unsafe"]
    assert certificate.false_positives == 0
    assert (certificate.true_positives, certificate.positives) == (1, 20)


def test_certificate_counts_misses(tmp_path: Path) -> None:
    """A wrong label shows up as a miss and a false alarm, by id."""
    path = tmp_path / "golden.jsonl"
    path.write_text(
        '{"id": "a", "detector": "truncation", "label": true, "split": "dev", "text": "Paris."}\n'
        '{"id": "b", "detector": "truncation", "label": false, "split": "dev", "text": "to the"}\n'
        '{"id": "c", "detector": "truncation", "label": false, "split": "dev", "text": "Hi, so:"}\n'
    )
    certificate = certify_detectors(path)["truncation"]
    assert certificate.missed == ("a",)
    assert certificate.wrongly_flagged == ("c",)
    assert (certificate.precision, certificate.recall) == (0.0, 0.0)


@pytest.mark.parametrize("line", ["{", '{"id": "a"}', '{"id":"a","detector":"x","label":true}'])
def test_bad_golden_file_is_refused(tmp_path: Path, line: str) -> None:
    """A golden file that cannot be read says so instead of certifying over nothing."""
    path = tmp_path / "golden.jsonl"
    path.write_text(line)
    with pytest.raises(DataFileError):
        certify_detectors(path)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_detectors_are_total(text: str) -> None:
    """Any text gives a finding inside the text, or None, and never an error."""
    for finding in (
        detect_runaway(text),
        detect_truncation(text),
        detect_delimiter_leakage(text),
        detect_empty_or_echo(text, text),
        *detect_unsafe([text]),
    ):
        if finding is not None:
            start, end = finding.span
            assert 0 <= start <= end <= len(text)
            assert finding.why
            assert finding.detector in DETECTORS


@given(st.lists(st.sampled_from(["salt", "tin", "wool", "clay", "ink"]), min_size=1, max_size=400))
def test_length_alone_is_never_bad(words: list[str]) -> None:
    """A list of different numbered items stays clean however long it gets."""
    text = "\n".join(f"{i}. Item {i} is {word}" for i, word in enumerate(words, start=1))
    assert detect_runaway(text) is None
    assert detect_truncation(text) is None


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_hostile_lengths_take_no_time(size: int) -> None:
    """Long runs of one character do not send a pattern into backtracking."""
    for piece in ("a", "(", "`", '"', "ab", " ", "\n", "1. ", "Q: ", "#", ":("):
        text = piece * (size // len(piece))
        detect_runaway(text)
        detect_truncation(text)
        detect_delimiter_leakage(text)
        detect_empty_or_echo("Say something long and dull.", text)


def test_unsafe_finds_one_foul_sentence_in_a_long_text() -> None:
    """Ten clean sentences around a foul one do not dilute it away."""
    clean = "Plants take up water and light and turn both into sugar. "
    foul = "You are a fucking idiot. "
    finding = detect_unsafe([clean * 5 + foul + clean * 5])[0]
    assert finding is not None
    assert (clean * 5 + foul + clean * 5)[slice(*finding.span)].strip() == foul.strip()


def test_unsafe_instruction_is_marked_as_such() -> None:
    """An unsafe instruction with a harmless response is found, and shown where it stands."""
    rows = [QCRow("a", "How to make a pipe bomb at home", "I will not say.")]
    finding = detect_all(rows)["unsafe"][0]
    assert finding is not None
    assert finding.field == "instruction"
