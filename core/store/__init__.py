"""The record of what ran and what came of it, in SQLite or PostgreSQL."""

from __future__ import annotations

from core.store.engine import open_store
from core.store.fields import MetricVerdict, RunStatus, StageStatus, Verdict
from core.store.models import (
    ArtifactCreate,
    ArtifactPublic,
    IterationCreate,
    IterationPublic,
    PipelineRunCreate,
    PipelineRunPublic,
    QcMetricCreate,
    QcMetricPublic,
    StageRunCreate,
    StageRunEnd,
    StageRunPublic,
)
from core.store.repository import Store

__all__ = [
    "ArtifactCreate",
    "ArtifactPublic",
    "IterationCreate",
    "IterationPublic",
    "MetricVerdict",
    "PipelineRunCreate",
    "PipelineRunPublic",
    "QcMetricCreate",
    "QcMetricPublic",
    "RunStatus",
    "StageRunCreate",
    "StageRunEnd",
    "StageRunPublic",
    "StageStatus",
    "Store",
    "Verdict",
    "open_store",
]
