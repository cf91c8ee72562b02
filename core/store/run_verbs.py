"""Verbs for runs and their iterations."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, select

from core.errors import BadInputError, RunMismatchError
from core.store.fields import RunStatus, Verdict
from core.store.lookups import (
    inserted,
    interrupt,
    locked_run,
    locked_running_run,
    newest_runs,
    run_for_key,
    running_stages,
)
from core.store.models import (
    Iteration,
    IterationCreate,
    IterationPublic,
    PipelineRun,
    PipelineRunCreate,
    PipelineRunPublic,
    StoreModel,
)
from core.store.sessions import SessionSource, as_public, saved

_SAME_RUN = ("project", "config_hash", "model_source", "model_sha256")
_SAME_ITERATION = ("seed", "params")


class RunVerbs(SessionSource):
    """Start, end and find runs and iterations."""

    def start_run(self, run: PipelineRunCreate) -> PipelineRunPublic:
        """The run, now running: a new one, or the known one of this id, resumed.

        A resumed run follows its output directory, its flow run, and the config's text (of the same hash: its
        budget may have been raised); the rest stays as first written.

        Raises:
            RunMismatchError: the id is of a run with another config or model; `differences` says
                which, as {field: (recorded, given)}.
        """
        with self.transaction() as session:
            row = PipelineRun.model_validate(run, update={"created_at": self._clock()})
            if not inserted(row, session=session):
                row = locked_run(run.id, session=session)
                _refuse_differences(f"run {row.name} ({row.id})", row, run, _SAME_RUN)
                row.output_dir, row.config_yaml = run.output_dir, run.config_yaml
                row.flow_run_id = run.flow_run_id or row.flow_run_id
                row.status, row.ended_at = RunStatus.RUNNING, None
            return saved(row, PipelineRunPublic, session=session)

    def end_run(self, run_id: str, status: RunStatus) -> PipelineRunPublic:
        """The run, ended. Stages that nobody ended become interrupted with it.

        Raises:
            BadInputError: no such run, or it has ended in another way.
        """
        status = RunStatus(status)
        if status is RunStatus.RUNNING:
            raise BadInputError("a run cannot end as running; say done, failed or interrupted")
        with self.transaction() as session:
            row = locked_run(run_id, session=session)
            if row.status is RunStatus.RUNNING:
                reason = f"the run ended as {status} before this stage did"
                for stage in running_stages(run_id, session=session):
                    interrupt(stage, self._clock(), reason)
                row.status, row.ended_at = status, self._clock()
            elif row.status is not status:
                raise BadInputError(
                    f"run {row.name} ({row.id}) has already ended as {row.status}, not {status}"
                )
            return saved(row, PipelineRunPublic, session=session)

    def find_run(self, key: str, *, project: str | None = None) -> PipelineRunPublic:
        """The run with this id, this name (the newest) or this start of an id (8 characters).

        Raises:
            BadInputError: there is none, or several ids begin so.
        """
        with self.snapshot() as session:
            return PipelineRunPublic.model_validate(run_for_key(key, project=project, session=session))

    def find_run_in(self, output_dir: str) -> PipelineRunPublic | None:
        """The newest run that writes to this directory; None where there is none."""
        with self.snapshot() as session:
            query = newest_runs(None, limit=1).where(PipelineRun.output_dir == output_dir)
            row = session.exec(query).first()
            return None if row is None else PipelineRunPublic.model_validate(row)

    def find_run_of_flow(self, flow_run_id: str) -> PipelineRunPublic | None:
        """The run that this flow run started or resumed last; None where there is none."""
        with self.snapshot() as session:
            query = newest_runs(None, limit=1).where(PipelineRun.flow_run_id == flow_run_id)
            row = session.exec(query).first()
            return None if row is None else PipelineRunPublic.model_validate(row)

    def run(self, run_id: str) -> PipelineRunPublic:
        """The run with exactly this id. Raises BadInputError for none."""
        with self.snapshot() as session:
            row = session.get(PipelineRun, run_id)
            if row is None:
                raise BadInputError(f"the store holds no run {run_id}")
            return PipelineRunPublic.model_validate(row)

    def latest_run(self, *, project: str | None = None) -> PipelineRunPublic | None:
        """The run that was started last; None in an empty store."""
        runs = self.runs(project=project, limit=1)
        return runs[0] if runs else None

    def runs(self, *, project: str | None = None, limit: int | None = None) -> list[PipelineRunPublic]:
        """Runs, newest first."""
        with self.snapshot() as session:
            rows = session.exec(newest_runs(project, limit=limit)).all()
            return as_public(rows, PipelineRunPublic)

    def start_iteration(self, iteration: IterationCreate) -> IterationPublic:
        """The iteration of this number: a new one, or the known one unchanged.

        Raises:
            BadInputError: no such run, or it has ended.
            RunMismatchError: the number was tried with another seed or other parameters.
        """
        with self.transaction() as session:
            run = locked_running_run(iteration.run_id, session=session)
            query = select(Iteration).where(Iteration.run_id == run.id, Iteration.number == iteration.number)
            row = session.exec(query).one_or_none()
            if row is None:
                row = Iteration.model_validate(iteration, update={"started_at": self._clock()})
            else:
                label = f"iteration {row.number} of run {run.name}"
                _refuse_differences(label, row, iteration, _SAME_ITERATION)
            return saved(row, IterationPublic, session=session)

    def end_iteration(self, iteration_id: int, verdict: Verdict) -> IterationPublic:
        """The iteration, ended with its QC verdict, which stands from then on.

        Raises:
            BadInputError: no such iteration, or it has another verdict already.
        """
        verdict = Verdict(verdict)
        with self.transaction() as session:
            row = session.get(Iteration, iteration_id)
            if row is None:
                raise BadInputError(f"the store holds no iteration with id {iteration_id}")
            locked_run(row.run_id, session=session)
            session.refresh(row)
            if row.verdict is None:
                row.verdict, row.ended_at = verdict, self._clock()
            elif row.verdict is not verdict:
                raise BadInputError(
                    f"iteration {row.number} of run {row.run_id} has the verdict {row.verdict}; "
                    f"for {verdict} start a new iteration"
                )
            return saved(row, IterationPublic, session=session)

    def iterations(self, run_id: str) -> list[IterationPublic]:
        """Iterations of the run by number."""
        with self.snapshot() as session:
            query = select(Iteration).where(Iteration.run_id == run_id)
            rows = session.exec(query.order_by(col(Iteration.number))).all()
            return as_public(rows, IterationPublic)


def _refuse_differences(label: str, recorded: StoreModel, given: StoreModel, fields: Sequence[str]) -> None:
    pairs = {name: (getattr(recorded, name), getattr(given, name)) for name in fields}
    differences = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differences:
        listed = "; ".join(f"{name} was {a}, now {b}" for name, (a, b) in differences.items())
        raise RunMismatchError(
            f"{label} cannot be resumed: {listed}. Start a new one, or go back to what it was.",
            differences=differences,
        )
