"""Verbs for stage runs: every attempt is kept, one at a time is running."""

from __future__ import annotations

from sqlmodel import col, select

from core.errors import BadInputError
from core.store.fields import StageStatus
from core.store.lookups import attempts_of, interrupt, locked_run, locked_running_run, own_iteration
from core.store.models import StageRun, StageRunCreate, StageRunEnd, StageRunPublic
from core.store.sessions import SessionSource, as_public, saved


class StageVerbs(SessionSource):
    """Start, end and list attempts at stages."""

    def start_stage(self, stage: StageRunCreate) -> StageRunPublic:
        """A new attempt at the stage. An earlier one that still counts as running is interrupted.

        Starting a stage again says that the process of the attempt before it is gone.

        Raises:
            BadInputError: no such run or iteration, or the run has ended.
        """
        with self.transaction() as session:
            locked_running_run(stage.run_id, session=session)
            if stage.iteration_id is not None:
                own_iteration(stage.iteration_id, stage.run_id, session=session)
            earlier = attempts_of(stage, session=session)
            attempt = earlier[-1].attempt + 1 if earlier else 1
            reason = f"its process ended unheard; attempt {attempt} took over"
            for left in earlier:
                if left.status is StageStatus.RUNNING:
                    interrupt(left, self._clock(), reason)
            values = {"attempt": attempt, "started_at": self._clock()}
            row = StageRun.model_validate(stage, update=values)
            return saved(row, StageRunPublic, session=session)

    def end_stage(self, stage_run_id: int, end: StageRunEnd) -> StageRunPublic:
        """The attempt, ended. `seconds` is the wall time since its start where `end` has none.

        Raises:
            BadInputError: no such attempt, it ended in another way, or a later one took over.
        """
        with self.transaction() as session:
            row = session.get(StageRun, stage_run_id)
            if row is None:
                raise BadInputError(f"the store holds no stage run with id {stage_run_id}")
            locked_run(row.run_id, session=session)
            session.refresh(row)
            if row.status is StageStatus.RUNNING:
                self._finish(row, end)
            else:
                _refuse_other_end(row, end)
            return saved(row, StageRunPublic, session=session)

    def stages(self, run_id: str) -> list[StageRunPublic]:
        """All attempts of the run in the order in which they started."""
        with self.snapshot() as session:
            query = select(StageRun).where(StageRun.run_id == run_id)
            return as_public(session.exec(query.order_by(col(StageRun.id))).all(), StageRunPublic)

    def _finish(self, row: StageRun, end: StageRunEnd) -> None:
        now = self._clock()
        row.sqlmodel_update(end)
        row.ended_at = now
        if row.seconds is None:
            row.seconds = max(0.0, (now - row.started_at).total_seconds())


def _refuse_other_end(row: StageRun, end: StageRunEnd) -> None:
    """A repeated end is fine if it says the same; `seconds` may have been filled in by us."""
    said = end.model_dump(exclude_none=True)
    if all(getattr(row, name) == value for name, value in said.items()):
        return
    label = f"stage {row.stage} (attempt {row.attempt}) of run {row.run_id}"
    if row.status is StageStatus.INTERRUPTED:
        raise BadInputError(f"{label} was given up: {row.error}. Stop this process.")
    raise BadInputError(f"{label} has already ended as {row.status} with other numbers")
