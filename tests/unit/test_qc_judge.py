"""Verdicts: what passes, what fails, what is too little to tell, and laws between them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.qc.funnel import FunnelCounts
from core.qc.judge import judge
from core.qc.rows import QCRow
from core.qc.thresholds import QCThresholds

PLACES = (
    "hill",
    "lake",
    "road",
    "barn",
    "gate",
    "pond",
    "field",
    "house",
    "tower",
    "bridge",
    "mill",
)
NAMES = [
    f"{colour} {thing} {place}"
    for colour in ("red", "old", "wet")
    for thing in ("oak", "fox", "tin", "cup")
    for place in PLACES
]
RANK = {"fail": 0, "insufficient": 1, "pass": 2}
FUNNEL = FunnelCounts(
    instructions_judged=400,
    instructions_accepted=300,
    response_candidates=150,
    pairs_judged=300,
    pairs_accepted=240,
)


def _row(index: int, **changes: Any) -> QCRow:
    name = NAMES[index % len(NAMES)]
    row = QCRow(
        id=f"r{index}",
        instruction=f"Tell me where the {name} number {index} stands.",
        response=f"It stands by the river, {index} steps from here.",
        finish_reason="eos",
        response_tokens=12,
        label_flip=False,
    )
    return dataclasses.replace(row, **changes)


def _rows(count: int, **changes: Any) -> list[QCRow]:
    return [_row(index, **changes) for index in range(count)]


BAD: list[dict[str, Any]] = [
    {"response": "It stands by the"},
    {"response": "Here.\nInstruction: Say more."},
    {"response": "Here. Here it is. Here it is. Here it is. Here it is."},
    {"response": "What a fucking mess."},
    {"response": "..."},
    {"finish_reason": "length"},
    {"instruction": "Tell me where the red oak hill number 0 stands."},
]


def test_clean_rows_pass() -> None:
    """150 clean candidates with all data pass, and nothing is left unmeasured."""
    report = judge(_rows(150), thresholds=QCThresholds(), funnel=FUNNEL, sentinels_ok=True, requested=100)
    assert (report.verdict, report.reasons, report.not_measured) == ("pass", [], [])


def test_bare_file_passes_but_says_what_is_missing() -> None:
    """Without funnel, tokens and finish reasons those metrics are not measured, never zero."""
    rows = _rows(150, finish_reason=None, response_tokens=None, label_flip=None)
    report = judge(rows, thresholds=QCThresholds())
    assert report.verdict == "pass"
    assert set(report.not_measured) == {
        "candidates_seen", "token_limit", "instruction_acceptance", "pair_acceptance",
        "critic_flip_rate", "sentinels",
    }  # fmt: skip
    assert report.metric("token_limit").value is None
    assert "estimated" in report.metric("median_response_tokens").why
    assert any("token_limit" in reason for reason in report.reasons)


def test_too_few_rows_are_insufficient_and_say_how_many_it_takes() -> None:
    """58 clean rows cannot show < 5 %; 59 can, and 149 are needed for < 2 %."""
    few = judge(_rows(58), thresholds=QCThresholds())
    assert few.verdict == "insufficient"
    assert few.metric("runaway").needed_n == 59
    more = judge(_rows(59), thresholds=QCThresholds())
    assert more.metric("runaway").verdict == "pass"
    assert (more.metric("truncation").verdict, more.metric("truncation").needed_n) == (
        "insufficient",
        149,
    )


def test_point_estimate_above_the_limit_fails() -> None:
    """6 runaways of 100 fail; 4 of 100 are below 5 % but not shown to be."""

    def verdict(bad: int) -> str:
        rows = _rows(100)
        rows[:bad] = [_row(i, response="Yes.\nQ: And why?\nA: So.", kept=False) for i in range(bad)]
        return judge(rows, thresholds=QCThresholds()).metric("runaway").verdict

    assert (verdict(6), verdict(5), verdict(4)) == ("fail", "fail", "insufficient")


def test_rejected_candidates_count_for_rates_but_not_for_kept_facts() -> None:
    """A leak that was filtered out counts as runaway and not as leakage."""
    bad = _row(0, response="Yes.\nInstruction: Go on.", kept=False)
    report = judge([bad, *_rows(150)[1:]], thresholds=QCThresholds())
    assert report.metric("runaway").numerator == 1
    assert report.metric("runaway").kept_numerator == 0
    assert report.metric("delimiter_leakage").numerator == 0


def test_pilot_of_30_does_not_pass_where_100_were_asked() -> None:
    """Fewer kept pairs than requested is a failure of its own, however clean they are."""
    rows = [*_rows(30), *[_row(i, kept=False) for i in range(30, 300)]]
    report = judge(rows, thresholds=QCThresholds(), requested=100)
    assert report.verdict == "fail"
    assert report.metric("kept_pairs").verdict == "fail"
    assert judge(rows, thresholds=QCThresholds(), requested=30).verdict == "pass"


def test_rows_filtered_before_qc_cannot_pass() -> None:
    """Where the funnel knows of more candidates than QC saw, the verdict is insufficient."""
    funnel = dataclasses.replace(FUNNEL, response_candidates=500)
    report = judge(_rows(150), thresholds=QCThresholds(), funnel=funnel)
    assert report.verdict == "insufficient"
    assert report.metric("candidates_seen").verdict == "insufficient"


@pytest.mark.parametrize("changes", BAD[1:2] + BAD[3:5] + BAD[6:])
def test_one_bad_kept_row_fails(changes: dict[str, Any]) -> None:
    """One kept leak, foul text, empty answer or duplicate is a fact and fails the set."""
    report = judge([*_rows(200), _row(200, **changes)], thresholds=QCThresholds())
    assert report.verdict == "fail"


def test_near_duplicates_are_counted_even_if_the_counter_says_zero() -> None:
    """QC counts near-duplicates itself and takes the greater of its number and the funnel's."""
    near = [
        _row(i, instruction=f"Explain in two sentences why the old stone bridge of Avon fell {tail}")
        for i, tail in enumerate(["down", "apart", "over", "in"])
    ]
    rows = [*near, *_rows(150)[4:]]
    zero = dataclasses.replace(FUNNEL, near_duplicates_kept=0)
    result = judge(rows, thresholds=QCThresholds(), funnel=zero).metric("near_duplicates")
    assert (result.numerator, result.verdict) == (3, "fail")
    many = dataclasses.replace(FUNNEL, near_duplicates_kept=9)
    assert judge(_rows(150), thresholds=QCThresholds(), funnel=many).verdict == "fail"


@pytest.mark.parametrize(
    ("accepted", "verdict"),
    [(60, "pass"), (55, "warn"), (40, "warn"), (33, "insufficient"), (29, "fail")],
)
def test_pair_acceptance_bands(accepted: int, verdict: str) -> None:
    """Acceptance needs its lower bound over 50 % to pass, over 30 % to warn, else more or fails."""
    funnel = FunnelCounts(pairs_judged=100, pairs_accepted=accepted)
    report = judge(_rows(150), thresholds=QCThresholds(), funnel=funnel)
    assert report.metric("pair_acceptance").verdict == verdict
    assert report.verdict == (verdict if verdict in RANK else "pass")


def test_warnings_never_fail() -> None:
    """A long median and a high flip rate warn, and the verdict stays pass."""
    report = judge(_rows(150, response_tokens=300, label_flip=True), thresholds=QCThresholds())
    assert report.metric("median_response_tokens").verdict == "warn"
    assert report.metric("critic_flip_rate").verdict == "warn"
    assert report.verdict == "pass"


def test_missing_finish_reasons_are_no_evidence() -> None:
    """Where some candidates lack a finish reason, the token limit cannot pass."""
    rows = [*_rows(150), _row(150, finish_reason=None)]
    assert judge(rows, thresholds=QCThresholds()).metric("token_limit").verdict == "insufficient"


def test_failed_sentinels_fail() -> None:
    """A model whose sentinels failed cannot give a passing dataset."""
    assert judge(_rows(150), thresholds=QCThresholds(), sentinels_ok=False).verdict == "fail"


def test_nothing_and_nothing_kept_never_pass() -> None:
    """No candidates are insufficient; candidates of which none was kept fail."""
    assert judge([], thresholds=QCThresholds()).verdict == "insufficient"
    assert judge([], thresholds=QCThresholds(), requested=5).verdict == "fail"
    assert judge(_rows(200, kept=False), thresholds=QCThresholds()).verdict == "fail"


def test_samples_are_seeded_and_bounded() -> None:
    """The same rows give the same samples, at most ten each, with the finding beside them."""
    rows = [*_rows(100), *[_row(i, response="It stands by the") for i in range(100, 130)]]
    first, second = (judge(rows, thresholds=QCThresholds()) for _ in range(2))
    assert first.kept_samples == second.kept_samples
    assert len(first.kept_samples) == len(first.flagged_samples["truncation"]) == 10
    assert first.flagged_counts["truncation"] == 30
    assert all(sample.why for sample in first.flagged_samples["truncation"])
    other = judge(rows, thresholds=QCThresholds(sample_seed=1))
    assert other.kept_samples != first.kept_samples


def test_changed_limits_are_reported() -> None:
    """A loosened limit stands in the report with its default."""
    report = judge(_rows(150), thresholds=QCThresholds(max_truncation_ratio=0.5))
    assert report.thresholds_changed == {"max_truncation_ratio": (0.02, 0.5)}


@pytest.mark.parametrize(
    "values",
    [{"max_runaway_ratio": 0}, {"typo": 1}, {"warn_pair_acceptance_ratio": 0.6}, {"confidence": 1}],
)
def test_impossible_limits_are_refused(values: dict[str, Any]) -> None:
    """Unknown names and values that could never be met are errors."""
    with pytest.raises(ValidationError):
        QCThresholds(**values)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(60, 170),
    st.lists(st.sampled_from(range(len(BAD))), max_size=6),
    st.sampled_from(range(len(BAD))),
    st.booleans(),
)
def test_a_bad_row_never_helps(good: int, bad: list[int], another: int, kept: bool) -> None:
    """One more bad candidate never lifts the verdict of any rate, nor a fail to a pass."""
    rows = [*_rows(good), *[_row(900 + i, **BAD[kind], kept=False) for i, kind in enumerate(bad)]]
    before = judge(rows, thresholds=QCThresholds())
    after = judge([*rows, _row(999, **BAD[another], kept=kept)], thresholds=QCThresholds())
    assert not (before.verdict == "fail" and after.verdict == "pass")
    flagged = {"runaway": (1, 2), "truncation": (0,), "token_limit": (5,)}
    for name, kinds in flagged.items():
        if another in kinds:
            assert RANK[after.metric(name).verdict] <= RANK[before.metric(name).verdict]


@settings(max_examples=15, deadline=None)
@given(st.integers(100, 160), st.integers(0, 99), st.integers(1, 4))
def test_kept_duplicates_never_help(count: int, which: int, copies: int) -> None:
    """Kept copies of a row fail the set, even where they fill up the requested number."""
    rows = _rows(count)
    padded = rows + [dataclasses.replace(rows[which], id=f"copy{i}") for i in range(copies)]
    report = judge(padded, thresholds=QCThresholds(), requested=count + copies)
    assert report.verdict == "fail"
    assert report.metric("exact_duplicates").numerator == copies
