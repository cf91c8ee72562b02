"""Finding the rows that a verb works on, or saying in plain words why it cannot.

All functions take their session by keyword and leave the transaction to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from core.errors import BadInputError
from core.store.fields import RunStatus, StageStatus
from core.store.models import (
    Artifact,
    ArtifactCreate,
    Iteration,
    PipelineRun,
    QcMetric,
    StageRun,
    StageRunBase,
)

_SHORT_ID_CHARS = 8
_NAMES_SHOWN = 5


def locked_run(run_id: str, *, session: Session) -> PipelineRun:
    """The run, its row held until the transaction ends. Raises BadInputError for none."""
    # NO KEY UPDATE: rows that refer to the run can still be added by others.
    query = select(PipelineRun).where(PipelineRun.id == run_id).with_for_update(key_share=True)
    run = session.exec(query).one_or_none()
    if run is None:
        raise BadInputError(f"the store holds no run {run_id}; start it first", run_id=run_id)
    return run


def inserted(run: PipelineRun, *, session: Session) -> bool:
    """Whether the run is new. False leaves all as it was: the store already holds its id."""
    if session.get(PipelineRun, run.id) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(run)
    except IntegrityError:  # another process was faster
        return False
    return True


def locked_running_run(run_id: str, *, session: Session) -> PipelineRun:
    """Like `locked_run`, for work that only a run in progress may do."""
    run = locked_run(run_id, session=session)
    if run.status is not RunStatus.RUNNING:
        raise BadInputError(
            f"run {run.name} ({run.id}) has ended as {run.status}; resume it by starting it again "
            "under its id before its stages",
            run_id=run_id,
            status=run.status,
        )
    return run


def run_for_key(key: str, *, project: str | None, session: Session) -> PipelineRun:
    """The run with this id, else the newest of this name, else the one whose id begins so.

    Raises:
        BadInputError: no such run (the newest names are listed), or several ids begin so.
    """
    query = newest_runs(project, limit=1)
    for condition in (PipelineRun.id == key, PipelineRun.name == key):
        found = session.exec(query.where(condition)).first()
        if found is not None:
            return found
    matches = _runs_by_short_id(key, project=project, session=session)
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(run.id for run in matches)
        raise BadInputError(f"several runs begin with {key!r}: {ids}; write more of the id")
    newest = session.exec(newest_runs(project, limit=_NAMES_SHOWN)).all()
    names = ", ".join(run.name for run in newest) or "none"
    raise BadInputError(f"the store holds no run {key!r}; the newest runs are: {names}", key=key)


def _runs_by_short_id(key: str, *, project: str | None, session: Session) -> Sequence[PipelineRun]:
    if len(key) < _SHORT_ID_CHARS:
        return ()
    begins_so = col(PipelineRun.id).startswith(key.lower(), autoescape=True)
    return session.exec(newest_runs(project, limit=_NAMES_SHOWN).where(begins_so)).all()


def newest_runs(project: str | None, *, limit: int | None) -> SelectOfScalar[PipelineRun]:
    """Query for runs, newest first, of one project or of all."""
    query = select(PipelineRun).order_by(col(PipelineRun.created_at).desc(), col(PipelineRun.id))
    if project is not None:
        query = query.where(PipelineRun.project == project)
    return query.limit(limit)


def own_iteration(iteration_id: int, run_id: str, *, session: Session) -> Iteration:
    """The iteration. Raises BadInputError where it is missing or belongs to another run."""
    iteration = session.get(Iteration, iteration_id)
    if iteration is None or iteration.run_id != run_id:
        raise BadInputError(f"run {run_id} has no iteration with id {iteration_id}")
    return iteration


def own_stage_run(stage_run_id: int, run_id: str, *, session: Session) -> StageRun:
    """The stage run. Raises BadInputError where it is missing or belongs to another run."""
    stage_run = session.get(StageRun, stage_run_id)
    if stage_run is None or stage_run.run_id != run_id:
        raise BadInputError(f"run {run_id} has no stage run with id {stage_run_id}")
    return stage_run


def attempts_of(stage: StageRunBase, *, session: Session) -> Sequence[StageRun]:
    """All attempts at the same stage of the same run and iteration, first to last."""
    query = (
        select(StageRun)
        .where(StageRun.run_id == stage.run_id, StageRun.stage == stage.stage)
        .where(col(StageRun.iteration_id).is_not_distinct_from(stage.iteration_id))
        .order_by(col(StageRun.attempt))
    )
    return session.exec(query).all()


def running_stages(run_id: str, *, session: Session) -> Sequence[StageRun]:
    """Stage runs of the run that nobody has ended."""
    query = select(StageRun).where(StageRun.run_id == run_id, StageRun.status == StageStatus.RUNNING)
    return session.exec(query).all()


def known_artifact(artifact: ArtifactCreate, *, session: Session) -> Artifact | None:
    """The row that already stands for this content in this run, if there is one."""
    query = select(Artifact).where(
        Artifact.run_id == artifact.run_id,
        Artifact.kind == artifact.kind,
        Artifact.sha256 == artifact.sha256,
    )
    return session.exec(query).one_or_none()


def known_metrics(run_id: str, iteration_id: int | None, *, session: Session) -> dict[str, QcMetric]:
    """Metrics of the iteration (or of the run outside any) by name."""
    query = select(QcMetric).where(
        QcMetric.run_id == run_id,
        col(QcMetric.iteration_id).is_not_distinct_from(iteration_id),
    )
    return {metric.name: metric for metric in session.exec(query)}


def interrupt(stage: StageRun, now: datetime, reason: str) -> None:
    """Mark an attempt as given up. How many seconds it worked is unknown and stays empty."""
    stage.status, stage.ended_at, stage.error = StageStatus.INTERRUPTED, now, reason
