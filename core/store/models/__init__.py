"""Tables of the store, each as Base / Create (validated at the door) / table / Public.

Importing this package registers every table in `StoreModel.metadata`; a module that adds a table is
added to the imports here, or the migrations contract test does not see it.
"""

from __future__ import annotations

from core.store.models.artifacts import Artifact, ArtifactCreate, ArtifactPublic
from core.store.models.base import RecordModel, StoreModel, utc_now
from core.store.models.gates import (
    Gate,
    GateAnswer,
    GateAnswerCreate,
    GateAnswerPublic,
    GateCreate,
    GateDecision,
    GateDecisionCreate,
    GateDecisionPublic,
    GatePublic,
    UsedCode,
)
from core.store.models.metrics import QcMetric, QcMetricCreate, QcMetricPublic
from core.store.models.reviews import (
    AdviceOutcome,
    AdviceOutcomeCreate,
    AdviceOutcomePublic,
    Review,
    ReviewCreate,
    ReviewPublic,
)
from core.store.models.runs import (
    Iteration,
    IterationCreate,
    IterationPublic,
    PipelineRun,
    PipelineRunCreate,
    PipelineRunPublic,
)
from core.store.models.stages import (
    StageRun,
    StageRunBase,
    StageRunCreate,
    StageRunEnd,
    StageRunPublic,
)

__all__ = [
    "AdviceOutcome",
    "AdviceOutcomeCreate",
    "AdviceOutcomePublic",
    "Artifact",
    "ArtifactCreate",
    "ArtifactPublic",
    "Gate",
    "GateAnswer",
    "GateAnswerCreate",
    "GateAnswerPublic",
    "GateCreate",
    "GateDecision",
    "GateDecisionCreate",
    "GateDecisionPublic",
    "GatePublic",
    "Iteration",
    "IterationCreate",
    "IterationPublic",
    "PipelineRun",
    "PipelineRunCreate",
    "PipelineRunPublic",
    "QcMetric",
    "QcMetricCreate",
    "QcMetricPublic",
    "RecordModel",
    "Review",
    "ReviewCreate",
    "ReviewPublic",
    "StageRun",
    "StageRunBase",
    "StageRunCreate",
    "StageRunEnd",
    "StageRunPublic",
    "StoreModel",
    "UsedCode",
    "utc_now",
]
