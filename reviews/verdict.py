"""The typed verdict that a reviewer has to give, and what stands in for one that it did not give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, create_model

from core.tuning import TUNABLES, TuningValue
from reviews.question import GateQuestion

VerdictDecision = Literal["go", "no_go", "iterate"]
Decision = Literal["go", "no_go", "iterate", "escalate"]


class _Strict(BaseModel):
    """Unknown fields, missing fields and converted types are all refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _proposal_model() -> type[_Strict]:
    fields: dict[str, Any] = {}
    for name, tunable in TUNABLES.items():
        text = f"{tunable.title}; null leaves it as it is"
        fields[name] = (tunable.kind | None, Field(ge=tunable.low, le=tunable.high, description=text))
    return create_model("ProposedChanges", __base__=_Strict, **fields)


ProposedChanges = _proposal_model()


class Verdict(_Strict):
    """What a reviewer says. All fields are required: strict JSON schemas know no defaults."""

    decision: VerdictDecision
    reasoning: Annotated[str, Field(pattern=r"\S", max_length=6000)]
    concerns: Annotated[list[Annotated[str, Field(max_length=600)]], Field(max_length=12)]
    changes: ProposedChanges  # type: ignore[valid-type]
    confidence: Annotated[float, Field(ge=0, le=1)]
    priority: Literal["low", "medium", "high"]

    def proposal(self) -> dict[str, TuningValue]:
        """The proposed changes that are not null."""
        changes: BaseModel = self.changes
        values: dict[str, TuningValue] = {
            name: value for name, value in changes.model_dump().items() if value is not None
        }
        return values


@dataclass(frozen=True)
class ReviewOutcome:
    """One review, whatever came of it. `decision` is `escalate` whenever there is no valid verdict.

    Attributes:
        reviewer: who reviewed: `primary`, `blind` (without samples) or `second`.
        escalation: why there is no verdict, in words for people; None where there is one.
        request: the body that was sent (no key in it). response: the body that came, cut at the limit.
        cost_usd_micros: price of the tokens reported; None where the server reported none.
        latency_s: seconds from sending to the end of the answer.
    """

    reviewer: str
    model: str
    base_url: str | None
    rubric: str
    rubric_sha256: str
    decision: Decision
    verdict: Verdict | None
    escalation: str | None
    request: dict[str, Any]
    response: str
    latency_s: float
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd_micros: int | None = None


class Reviewer(Protocol):
    """Anything that answers a gate's question."""

    def review(self, question: GateQuestion, *, blind: bool = False) -> ReviewOutcome:
        """The outcome; `blind` leaves every generated text out of the request.

        Raises:
            TransientError: a passing fault (rate limit, server error, time-out); worth another try.
        """
        ...
