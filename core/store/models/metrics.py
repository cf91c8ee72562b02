"""QC metrics: the number, what it was counted over, the bound and the limit that judged it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AwareDatetime, model_validator
from sqlalchemy import BigInteger, Index, String, text
from sqlmodel import Field

from core.store.fields import Count, Finite, MetricVerdict, Name, RunId, enum_text
from core.store.models.base import RecordModel, StoreModel, utc_now


class QcMetricBase(StoreModel):
    """One line of a QC table. `value`, `bound` and `threshold` are in `unit` (ratio, tokens, ...).

    `bound` is the one-sided 95 % bound on the bad side that the verdict rests on, if any.
    """

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id")
    iteration_id: int | None = Field(default=None, foreign_key="iteration.id")
    name: Name = Field(sa_type=String)
    unit: Name = Field(sa_type=String)
    verdict: MetricVerdict = Field(sa_type=enum_text(MetricVerdict))
    numerator: Count | None = Field(default=None, sa_type=BigInteger)
    denominator: Count | None = Field(default=None, sa_type=BigInteger)
    value: Finite | None = None
    bound: Finite | None = None
    threshold: Finite | None = None


class QcMetricCreate(QcMetricBase, RecordModel):
    """A metric to record."""

    @model_validator(mode="after")
    def _part_of_whole(self) -> Self:
        if self.unit != "ratio" or self.numerator is None:
            return self
        if self.denominator is None:
            raise ValueError(f"{self.name} counts {self.numerator} without saying of how many")
        if self.numerator > self.denominator:
            raise ValueError(f"{self.name} counts {self.numerator} of only {self.denominator}")
        return self


class QcMetric(QcMetricBase, table=True):
    """Table of metrics; a name occurs once in an iteration, or once in a run that has none."""

    __tablename__ = "qc_metric"
    __table_args__: Any = (
        Index(
            "uq_qc_metric_name_of_run",
            "run_id",
            "name",
            unique=True,
            sqlite_where=text("iteration_id IS NULL"),
            postgresql_where=text("iteration_id IS NULL"),
        ),
        Index(
            "uq_qc_metric_name_of_iteration",
            "iteration_id",
            "name",
            unique=True,
            sqlite_where=text("iteration_id IS NOT NULL"),
            postgresql_where=text("iteration_id IS NOT NULL"),
        ),
        Index("ix_qc_metric_run_id", "run_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    recorded_at: AwareDatetime = Field(default_factory=utc_now)


class QcMetricPublic(QcMetricBase):
    """A metric as read back."""

    id: int
    recorded_at: AwareDatetime
