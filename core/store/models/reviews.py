"""Reviews: what a reviewer was sent, what came back, what it cost; and whether its advice helped."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime
from sqlalchemy import JSON, BigInteger, String, UniqueConstraint
from sqlmodel import Field

from core.store.fields import (
    AdviceEffect,
    Count,
    Finite,
    JsonDict,
    Name,
    RunId,
    Seconds,
    Sha256,
    Text,
    enum_text,
)
from core.store.models.base import RecordModel, StoreModel, utc_now


class ReviewBase(StoreModel):
    """One review of a gate. `decision` is `go`, `no_go`, `iterate`, or `escalate` for no valid verdict.

    `verdict` is empty and `escalation` says why where there is none. Tokens are as the server reported them;
    `cost_usd_micros` is None where it reported none.
    """

    gate_id: int = Field(foreign_key="gate.id", index=True)
    reviewer: Name = Field(sa_type=String)
    model: Text = Field(sa_type=String)
    base_url: Text | None = Field(default=None, sa_type=String)
    rubric: Name = Field(sa_type=String)
    rubric_sha256: Sha256 = Field(sa_type=String(64))
    decision: Name = Field(sa_type=String)
    verdict: JsonDict = Field(default_factory=dict, sa_type=JSON)
    escalation: Text | None = Field(default=None, sa_type=String)
    request: JsonDict = Field(default_factory=dict, sa_type=JSON)
    response: Text = Field(default="", sa_type=String)
    latency_s: Seconds = 0.0
    input_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    cached_input_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    output_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    reasoning_tokens: Count | None = Field(default=None, sa_type=BigInteger)
    cost_usd_micros: Count | None = Field(default=None, sa_type=BigInteger)


class ReviewCreate(ReviewBase, RecordModel):
    """A review to record."""


class Review(ReviewBase, table=True):
    """Table of reviews; each reviewer gives one for a gate."""

    __tablename__ = "review"
    __table_args__: Any = (UniqueConstraint("gate_id", "reviewer"),)

    id: int | None = Field(default=None, primary_key=True)
    created_at: AwareDatetime = Field(default_factory=utc_now)


class ReviewPublic(ReviewBase):
    """A review as read back."""

    id: int
    created_at: AwareDatetime


class AdviceOutcomeBase(StoreModel):
    """How one metric moved in the iteration that followed a review's advice."""

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id", index=True)
    review_id: int | None = Field(default=None, foreign_key="review.id")
    from_iteration_id: int = Field(foreign_key="iteration.id")
    to_iteration_id: int = Field(foreign_key="iteration.id")
    metric: Name = Field(sa_type=String)
    before: Finite | None = None
    after: Finite | None = None
    effect: AdviceEffect = Field(sa_type=enum_text(AdviceEffect))


class AdviceOutcomeCreate(AdviceOutcomeBase, RecordModel):
    """A movement to record."""


class AdviceOutcome(AdviceOutcomeBase, table=True):
    """Table of movements; a metric occurs once for an iteration."""

    __tablename__ = "advice_outcome"
    __table_args__: Any = (UniqueConstraint("to_iteration_id", "metric"),)

    id: int | None = Field(default=None, primary_key=True)
    recorded_at: AwareDatetime = Field(default_factory=utc_now)


class AdviceOutcomePublic(AdviceOutcomeBase):
    """A movement as read back."""

    id: int
    recorded_at: AwareDatetime
