"""Verbs for reviews, for what their advice did, and for what a project has cost so far."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import col, func, select

from core.store.lookups import locked_run
from core.store.models import (
    AdviceOutcome,
    AdviceOutcomeCreate,
    AdviceOutcomePublic,
    Gate,
    PipelineRun,
    Review,
    ReviewCreate,
    ReviewPublic,
    StageRun,
)
from core.store.sessions import SessionSource, as_public, saved

_SECONDS_PER_HOUR = 3600


class ReviewVerbs(SessionSource):
    """Record and list reviews and movements of metrics; sum up money."""

    def record_review(self, review: ReviewCreate) -> ReviewPublic:
        """The review of this reviewer at this gate: this one, unless there is one already."""
        with self.transaction() as session:
            query = select(Review).where(Review.gate_id == review.gate_id, Review.reviewer == review.reviewer)
            row = session.exec(query).one_or_none()
            if row is None:
                row = Review.model_validate(review, update={"created_at": self._clock()})
            return saved(row, ReviewPublic, session=session)

    def reviews(self, *, gate_id: int | None = None, run_id: str | None = None) -> list[ReviewPublic]:
        """Reviews of a gate, of a run, or all, oldest first."""
        with self.snapshot() as session:
            query = select(Review).order_by(col(Review.id))
            if gate_id is not None:
                query = query.where(Review.gate_id == gate_id)
            if run_id is not None:
                query = query.join(Gate, col(Gate.id) == col(Review.gate_id)).where(Gate.run_id == run_id)
            return as_public(session.exec(query).all(), ReviewPublic)

    def record_advice_outcomes(self, outcomes: Sequence[AdviceOutcomeCreate]) -> list[AdviceOutcomePublic]:
        """How the metrics of an iteration moved; recorded once, all or none."""
        if not outcomes:
            return []
        with self.transaction() as session:
            locked_run(outcomes[0].run_id, session=session)
            target = outcomes[0].to_iteration_id
            query = select(AdviceOutcome).where(AdviceOutcome.to_iteration_id == target)
            known = session.exec(query).all()
            if known:
                return as_public(known, AdviceOutcomePublic)
            now = {"recorded_at": self._clock()}
            rows = [AdviceOutcome.model_validate(outcome, update=now) for outcome in outcomes]
            return [saved(row, AdviceOutcomePublic, session=session) for row in rows]

    def advice_outcomes(self, run_id: str) -> list[AdviceOutcomePublic]:
        """All movements of a run in the order in which they were recorded."""
        with self.snapshot() as session:
            query = select(AdviceOutcome).where(AdviceOutcome.run_id == run_id)
            return as_public(session.exec(query.order_by(col(AdviceOutcome.id))).all(), AdviceOutcomePublic)

    def spent_usd_micros(
        self, *, project: str | None = None, run_id: str | None = None, iteration_id: int | None = None
    ) -> int:
        """Micro-USD of device time and reviews of a project, a run or an iteration.

        Stages whose seconds or price nobody knows count as nothing.
        """
        with self.snapshot() as session:
            price = col(StageRun.device_usd_micros_per_hour)
            device = select(func.sum(col(StageRun.seconds) * price / float(_SECONDS_PER_HOUR)))
            device = device.join(PipelineRun, col(PipelineRun.id) == col(StageRun.run_id))
            reviews = select(func.sum(Review.cost_usd_micros)).join(Gate, col(Gate.id) == col(Review.gate_id))
            reviews = reviews.join(PipelineRun, col(PipelineRun.id) == col(Gate.run_id))
            if project is not None:
                device = device.where(PipelineRun.project == project)
                reviews = reviews.where(PipelineRun.project == project)
            if run_id is not None:
                device = device.where(PipelineRun.id == run_id)
                reviews = reviews.where(PipelineRun.id == run_id)
            if iteration_id is not None:
                device = device.where(StageRun.iteration_id == iteration_id)
                reviews = reviews.where(Gate.iteration_id == iteration_id)
            return round(session.exec(device).one() or 0) + int(session.exec(reviews).one() or 0)
