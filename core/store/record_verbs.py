"""Verbs for what a run leaves behind: artifacts and QC metrics."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select

from core.errors import BadInputError
from core.store.lookups import (
    known_artifact,
    known_metrics,
    locked_run,
    own_iteration,
    own_stage_run,
)
from core.store.models import (
    Artifact,
    ArtifactCreate,
    ArtifactPublic,
    QcMetric,
    QcMetricCreate,
    QcMetricPublic,
)
from core.store.sessions import SessionSource, as_public, saved


class RecordVerbs(SessionSource):
    """Record and list artifacts and metrics."""

    def record_artifact(self, artifact: ArtifactCreate) -> ArtifactPublic:
        """The artifact, recorded once per run, kind and content.

        Recorded again, the row follows what is on disk now: path, manifest, parents, stage run.

        Raises:
            BadInputError: no such run, or the stage run belongs to another one.
        """
        with self.transaction() as session:
            locked_run(artifact.run_id, session=session)
            if artifact.stage_run_id is not None:
                own_stage_run(artifact.stage_run_id, artifact.run_id, session=session)
            row = known_artifact(artifact, session=session)
            if row is None:
                row = Artifact.model_validate(artifact, update={"created_at": self._clock()})
            else:
                row.sqlmodel_update(artifact)
            return saved(row, ArtifactPublic, session=session)

    def artifacts(self, run_id: str, *, kind: str | None = None) -> list[ArtifactPublic]:
        """Artifacts of the run in the order in which they were first recorded."""
        with self.snapshot() as session:
            query = select(Artifact).where(Artifact.run_id == run_id)
            if kind is not None:
                query = query.where(Artifact.kind == kind)
            return as_public(session.exec(query.order_by(col(Artifact.id))).all(), ArtifactPublic)

    def record_metrics(self, metrics: Sequence[QcMetricCreate]) -> list[QcMetricPublic]:
        """The metrics of one iteration, all or none; a name recorded before is replaced.

        Raises:
            BadInputError: no such run or iteration, metrics of several of them, a name twice.
        """
        if not metrics:
            return []
        run_id, iteration_id = _one_owner(metrics)
        with self.transaction() as session:
            locked_run(run_id, session=session)
            if iteration_id is not None:
                own_iteration(iteration_id, run_id, session=session)
            known = known_metrics(run_id, iteration_id, session=session)
            return [
                self._record_metric(metric, known.get(metric.name), session=session) for metric in metrics
            ]

    def _record_metric(
        self, metric: QcMetricCreate, row: QcMetric | None, *, session: Session
    ) -> QcMetricPublic:
        now = {"recorded_at": self._clock()}
        if row is None:
            row = QcMetric.model_validate(metric, update=now)
        else:
            row.sqlmodel_update(metric, update=now)
        return saved(row, QcMetricPublic, session=session)

    def metrics(self, run_id: str, *, iteration_id: int | None = None) -> list[QcMetricPublic]:
        """Metrics of the run in the order first recorded; of one iteration where it is named."""
        with self.snapshot() as session:
            query = select(QcMetric).where(QcMetric.run_id == run_id)
            if iteration_id is not None:
                query = query.where(QcMetric.iteration_id == iteration_id)
            return as_public(session.exec(query.order_by(col(QcMetric.id))).all(), QcMetricPublic)


def _one_owner(metrics: Sequence[QcMetricCreate]) -> tuple[str, int | None]:
    owners = {(metric.run_id, metric.iteration_id) for metric in metrics}
    if len(owners) > 1:
        raise BadInputError(f"metrics of {len(owners)} iterations in one call; record each alone")
    names = [metric.name for metric in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInputError(f"metrics named twice in one call: {', '.join(twice)}")
    return owners.pop()
