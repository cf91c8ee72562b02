"""What the store's Create and End models let in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.store import (
    ArtifactCreate,
    IterationCreate,
    MetricVerdict,
    PipelineRunCreate,
    QcMetricCreate,
    StageRunEnd,
    StageStatus,
)
from core.store.fields import ERROR_MAX_CHARS
from core.store.models import PipelineRun, StoreModel

RUN_ID = str(uuid4())
SHA = "ab" * 32

GOOD_RUN: dict[str, Any] = {
    "project": "demo",
    "name": "first",
    "config_hash": SHA,
    "config_yaml": "seed: 1\n",
    "model_source": "bundled",
    "output_dir": "runs/first",
}
GOOD_ARTIFACT: dict[str, Any] = {"run_id": RUN_ID, "kind": "pairs", "path": "a", "sha256": SHA}
GOOD_METRIC: dict[str, Any] = {
    "run_id": RUN_ID,
    "name": "runaway",
    "unit": "ratio",
    "verdict": MetricVerdict.PASS,
}


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "nul \x00 inside"},
        {"config_yaml": "half a pair \ud83d"},
        {"config_hash": "not hex"},
        {"model_sha256": SHA.upper()},
        {"model_sha256": SHA + "\n"},
        {"git_sha": "abc123"},
        {"id": "../../etc"},
        {"status": "done"},
    ],
    ids=repr,
)
def test_a_run_that_no_database_should_hold_is_refused(change: dict[str, Any]) -> None:
    """Every field of a run is checked before a table sees it, and unknown fields are refused."""
    PipelineRunCreate(**GOOD_RUN)
    with pytest.raises(ValidationError):
        PipelineRunCreate(**{**GOOD_RUN, **change})


@pytest.mark.parametrize(
    "change",
    [{"number": -1}, {"number": 2**31}, {"seed": -1}, {"seed": 2**63}, {"params": {"t": {1, 2}}}],
    ids=repr,
)
def test_an_iteration_outside_the_columns_range_is_refused(change: dict[str, Any]) -> None:
    """Numbers too large for PostgreSQL's columns and parameters that are not JSON are refused."""
    good: dict[str, Any] = {"run_id": RUN_ID, "number": 1, "seed": 2**63 - 1}
    IterationCreate(**good)
    with pytest.raises(ValidationError):
        IterationCreate(**{**good, **change})


@given(bad=st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_no_number_that_is_none_gets_in(bad: float) -> None:
    """NaN and infinities are refused in metrics, seconds and parameters alike."""
    with pytest.raises(ValidationError):
        QcMetricCreate(**GOOD_METRIC, value=bad)
    with pytest.raises(ValidationError):
        StageRunEnd(status=StageStatus.DONE, seconds=bad)
    with pytest.raises(ValidationError):
        IterationCreate(run_id=RUN_ID, number=1, seed=1, params={"deep": [{"t": bad}]})


@given(count=st.integers(max_value=-1))
def test_a_negative_count_is_refused(count: int) -> None:
    """No stage can have handled fewer than zero records or tokens."""
    for name in ("records_in", "records_out", "prompt_tokens", "completion_tokens", "seconds"):
        with pytest.raises(ValidationError):
            StageRunEnd.model_validate({"status": "done", name: count})


@pytest.mark.parametrize(
    "change",
    [{"sha256": "f" * 63}, {"sha256": "g" * 64}, {"parents": ["short"]}, {"path": ""}],
    ids=repr,
)
def test_an_artifact_needs_real_hashes(change: dict[str, Any]) -> None:
    """Content hash and parents are 64 lower-case hex digits, and the path is not empty."""
    with pytest.raises(ValidationError):
        ArtifactCreate(**{**GOOD_ARTIFACT, **change})


def test_parents_are_a_set() -> None:
    """Order and repetition of parents do not make another artifact."""
    made = ArtifactCreate(**GOOD_ARTIFACT, parents=["c" * 64, "a" * 64, "c" * 64])
    assert made.parents == ["a" * 64, "c" * 64]


@pytest.mark.parametrize("counts", [{"numerator": 3, "denominator": 2}, {"numerator": 3}], ids=repr)
def test_a_ratio_counts_part_of_a_whole(counts: dict[str, int]) -> None:
    """A ratio with more hits than cases, or hits of nothing, is refused; a plain count is not."""
    with pytest.raises(ValidationError):
        QcMetricCreate(**{**GOOD_METRIC, **counts})
    QcMetricCreate(**{**GOOD_METRIC, "unit": "count", **counts})


@pytest.mark.parametrize(
    "end",
    [
        {"status": "running"},
        {"status": "failed"},
        {"status": "done", "error": "boom"},
        {"status": "finished"},
    ],
    ids=repr,
)
def test_a_stage_ends_in_a_known_way(end: dict[str, str]) -> None:
    """A failure says why, a success has no error, and nothing ends as running."""
    with pytest.raises(ValidationError):
        StageRunEnd.model_validate(end)


@given(st.text(st.characters(codec=None), min_size=1, max_size=40).map(lambda text: text * 300))
def test_any_error_text_can_be_stored(text: str) -> None:
    """Whatever an exception says, its report fits every database: UTF-8, no NUL, bounded."""
    stored = StageRunEnd(status=StageStatus.FAILED, error=text).error
    assert stored
    stored.encode("utf-8")
    assert "\x00" not in stored
    assert len(stored) <= ERROR_MAX_CHARS


def test_times_without_a_zone_are_refused_at_the_column() -> None:
    """Every time column refuses a naive time and gives UTC back, even where validation is off."""
    naive = datetime(2025, 3, 30, 2, 30)
    columns = [
        column
        for table in StoreModel.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("_at")
    ]
    assert len(columns) == 17
    for column in columns:
        convert: Any = column.type
        with pytest.raises(ValueError, match="timezone"):
            convert.process_bind_param(naive, None)
        assert convert.process_result_value(naive, None) == naive.replace(tzinfo=UTC)


def test_create_models_do_not_change() -> None:
    """A validated model stays as it was validated."""
    made = PipelineRunCreate(**GOOD_RUN)
    with pytest.raises(ValidationError):
        made.name = ""
    assert PipelineRun.model_validate(made).name == "first"
