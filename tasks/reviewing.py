"""Asking reviewers, once each; their answers in the store, in the run's folder and in the gate's question."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import SecretStr

from core.config import ReviewerSection
from core.errors import TransientError
from core.files import write_text
from core.settings import get_settings
from core.store import ReviewCreate, ReviewPublic
from reviews.openai_reviewer import build_reviewers, escalated
from reviews.question import GateName, GateQuestion
from reviews.rubrics import load_rubric
from reviews.transcript import transcript_markdown
from reviews.verdict import Reviewer, ReviewOutcome, Verdict
from tasks.bookkeeping import the_store
from tasks.policies import RETRIES, RETRY_DELAYS_S, is_transient


def reviewers_for(section: ReviewerSection, gate: GateName) -> dict[str, Reviewer]:
    """The configured reviewers of a gate, `primary` first.

    Raises:
        ConfigError: a model without a known price, or a rubric that does not exist.
    """
    settings = get_settings()
    openai = _plain(settings.openai_api_key)
    first = _plain(settings.reviewer_api_key) or (openai if section.base_url is None else None)
    second = _plain(settings.second_reviewer_api_key) or first
    if section.second is not None and section.second.base_url is None:
        second = second or openai
    today = datetime.now(UTC).date()
    return build_reviewers(section, gate, primary_key=first, second_key=second, today=today)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@task(
    name="review",
    task_run_name="review-{label}",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=is_transient,
)
def ask_reviewer(label: str, section: ReviewerSection, question: GateQuestion) -> ReviewOutcome:
    """One reviewer's outcome; `blind` is the first reviewer without any generated text.

    Raises:
        TransientError: the reviewer's server did not answer this time.
    """
    reviewers = reviewers_for(section, question.gate)
    blind = label == "blind"
    return reviewers["primary" if blind else label].review(question, blind=blind)


def review_gate(
    gate_id: int, question: GateQuestion, section: ReviewerSection, folder: Path, *, doubt: bool
) -> dict[str, ReviewOutcome]:
    """All reviews of a gate by reviewer; what the store holds already is not asked for again.

    Args:
        doubt: the reviews may open the gate, so a `go` needs a second look that no generated text can sway.
    """
    outcomes = {review.reviewer: outcome_of(review) for review in the_store().reviews(gate_id=gate_id)}
    for label in _labels(section, doubt=doubt):
        needless = label == "blind" and outcomes["primary"].decision != "go"
        if label in outcomes or needless:
            continue
        outcomes[label] = _ask(label, section, question)
        the_store().record_review(_to_store(gate_id, label, outcomes[label]))
    for label, outcome in outcomes.items():
        if not (path := folder / f"review-{label}.md").is_file():
            write_text(path, transcript_markdown(question, outcome))
    return outcomes


def _labels(section: ReviewerSection, *, doubt: bool) -> list[str]:
    if section.kind == "none":
        return []
    return ["primary", *(["blind"] if doubt else []), *(["second"] if section.second else [])]


def _ask(label: str, section: ReviewerSection, question: GateQuestion) -> ReviewOutcome:
    try:
        outcome: ReviewOutcome = ask_reviewer(label, section, question)
        return outcome
    except TransientError as error:
        spec = section.second if label == "second" and section.second else section
        rubric = load_rubric(section.rubric, question.gate)
        reason = f"no answer after {RETRIES + 1} tries: {error}"
        return escalated(
            label, spec.model, spec.base_url, rubric.version, reason, rubric_sha256=rubric.sha256
        )


def outcome_of(review: ReviewPublic) -> ReviewOutcome:
    """A recorded review as it was when it came."""
    fields = review.model_dump(exclude={"id", "gate_id", "created_at", "verdict"})
    verdict = Verdict.model_validate(review.verdict) if review.verdict else None
    return ReviewOutcome(**fields, verdict=verdict)


def _to_store(gate_id: int, label: str, outcome: ReviewOutcome) -> ReviewCreate:
    fields = {name: value for name, value in asdict(outcome).items() if name not in ("verdict", "reviewer")}
    verdict = {} if outcome.verdict is None else outcome.verdict.model_dump(mode="json")
    return ReviewCreate(gate_id=gate_id, reviewer=label, verdict=verdict, **fields)
