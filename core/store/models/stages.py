"""Stage runs: every attempt at a stage, with what went in, what came out and what it took."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AwareDatetime, model_validator
from sqlalchemy import BigInteger, Index, String, text
from sqlmodel import Field

from core.store.fields import (
    Count,
    ErrorText,
    Name,
    RunId,
    Seconds,
    StageStatus,
    enum_text,
)
from core.store.models.base import RecordModel, StoreModel, utc_now


class StageRunBase(StoreModel):
    """Which stage of which run. Shards that run side by side carry the shard in `stage`.

    `device_usd_micros_per_hour` is the device's price when the attempt started; None is not known.
    """

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id")
    iteration_id: int | None = Field(default=None, foreign_key="iteration.id")
    stage: Name = Field(sa_type=String)
    device: Name | None = Field(default=None, sa_type=String)
    device_usd_micros_per_hour: Count | None = Field(default=None, sa_type=BigInteger)


class StageOutcome(StoreModel):
    """Counts of one attempt; None where a count means nothing for the stage.

    `prompt_tokens` and `completion_tokens` are of the model's own tokenizer; `seconds` is what the
    ledger prices, wall time unless the stage knows better.
    """

    records_in: Count | None = Field(default=None, sa_type=BigInteger)
    records_out: Count | None = Field(default=None, sa_type=BigInteger)
    prompt_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    completion_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    seconds: Seconds | None = None
    error: ErrorText | None = Field(default=None, sa_type=String)


class StageRunCreate(StageRunBase, RecordModel):
    """An attempt at a stage to start."""


class StageRunEnd(StageOutcome, RecordModel):
    """How an attempt ended. A failed one says why; one that is done has no error."""

    status: StageStatus

    @model_validator(mode="after")
    def _error_belongs_to_failure(self) -> Self:
        if self.status is StageStatus.RUNNING:
            raise ValueError("a stage cannot end as running")
        if self.status is StageStatus.FAILED and not self.error:
            raise ValueError("a failed stage needs its error")
        if self.status is StageStatus.DONE and self.error:
            raise ValueError("a stage that is done has no error")
        return self


class StageRun(StageRunBase, StageOutcome, table=True):
    """Table of attempts. NULL is distinct in unique constraints, hence one index for each case."""

    __tablename__ = "stage_run"
    __table_args__: Any = (
        Index(
            "uq_stage_run_attempt_of_run",
            "run_id",
            "stage",
            "attempt",
            unique=True,
            sqlite_where=text("iteration_id IS NULL"),
            postgresql_where=text("iteration_id IS NULL"),
        ),
        Index(
            "uq_stage_run_attempt_of_iteration",
            "iteration_id",
            "stage",
            "attempt",
            unique=True,
            sqlite_where=text("iteration_id IS NOT NULL"),
            postgresql_where=text("iteration_id IS NOT NULL"),
        ),
        Index("ix_stage_run_run_id", "run_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    attempt: int
    status: StageStatus = Field(default=StageStatus.RUNNING, sa_type=enum_text(StageStatus))
    started_at: AwareDatetime = Field(default_factory=utc_now)
    ended_at: AwareDatetime | None = None


class StageRunPublic(StageRunBase, StageOutcome):
    """An attempt as read back. The first attempt is number 1."""

    id: int
    attempt: int
    status: StageStatus
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
