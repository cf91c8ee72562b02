"""The reviewer behind OpenAI's API or any server that speaks it, and the one that is not there.

A passing fault is raised, for Prefect to try again. Everything else ends in an outcome, and an outcome
without a valid verdict says `escalate`: no error and no answer can be taken for an approval.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from core.config import ReviewerSection, ReviewerSpec
from core.costs.prices import TokenPrice, price_of, stated_price
from core.errors import TransientError
from reviews.answer import Answer, Usage, error_of, excerpt, read_answer
from reviews.disclosure import host_of, public_url, storable, without_key
from reviews.question import GateName, GateQuestion
from reviews.request import build_messages
from reviews.rubrics import Rubric, load_rubric
from reviews.verdict import Reviewer, ReviewOutcome, Verdict

if TYPE_CHECKING:
    from reviews.transport import RawAnswer

TRANSIENT_STATUSES = (408, 409, 429)
"""Time-out, conflict, rate limit; every status from 500 on as well."""


@dataclass(frozen=True)
class NoReviewer:
    """Stands in where no reviewer is configured: always to a person, at no cost."""

    rubric: Rubric
    label: str = "primary"

    def review(self, question: GateQuestion, *, blind: bool = False) -> ReviewOutcome:
        """An outcome that says so."""
        reason = "no reviewer is configured; set reviewer.kind and reviewer.model to have one"
        return escalated(
            _name(self.label, blind), "", None, self.rubric.version, reason, rubric_sha256=self.rubric.sha256
        )


@dataclass(frozen=True)
class OpenAIReviewer:
    """A model behind a chat completions server.

    Attributes:
        base_url: OpenAI's own server where None; only that one needs a key.
        timeout_s: for one whole answer, by the clock.
        max_output_tokens: reasoning included.
        price: None where nobody knows it; the cost of a review is then unknown too.
        label: what outcomes call it, `primary` or `second`.
    """

    model: str
    rubric: Rubric
    api_key: SecretStr | None = None
    base_url: str | None = None
    effort: str | None = None
    timeout_s: float = 180.0
    max_output_tokens: int = 8000
    max_answer_bytes: int = 131_072
    price: TokenPrice | None = None
    label: str = "primary"

    def review(self, question: GateQuestion, *, blind: bool = False) -> ReviewOutcome:
        """What the model says; `blind` leaves every generated text out of the request.

        Raises:
            TransientError: rate limit, server error, time-out, no connection.
        """
        body = self.request_body(question, blind=blind)
        if problem := self._key_problem():
            return self._outcome(body, blind, Answer(None, problem, Usage()))
        sent = self._ask(body)
        if isinstance(sent, str):
            return self._outcome(body, blind, Answer(None, sent, Usage()))
        raw = without_key(sent.body, self._key)
        answer = self._read(sent.status, raw, sent.whole)
        return self._outcome(body, blind, answer, storable(raw), sent.latency_s)

    def request_body(self, question: GateQuestion, *, blind: bool) -> dict[str, Any]:
        """What is sent, with a fence of its own each time. The key travels in a header and is not in it."""
        limit = "max_completion_tokens" if self.base_url is None else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": build_messages(question, self.rubric, blind=blind, fence=secrets.token_hex(8)),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": verdict_schema()},
            },
            limit: self.max_output_tokens,
        }
        return body if self.effort is None else body | {"reasoning_effort": self.effort}

    def _ask(self, body: dict[str, Any]) -> RawAnswer | str:
        """The server's answer, or why the request could not even be made."""
        from reviews.transport import post_completion

        try:
            return post_completion(
                body,
                base_url=self.base_url,
                api_key=self._key,
                timeout_s=self.timeout_s,
                max_bytes=self.max_answer_bytes,
            )
        except TransientError:
            raise
        except Exception as error:
            # An address that is none, a name that cannot be encoded: no gate may fall over it.
            words = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
            return f"the request could not be sent: {excerpt(storable(without_key(words, self._key)))}"

    def _read(self, status: int, raw: bytes, whole: bool) -> Answer:
        if status == 200 and whole:
            return read_answer(raw)
        if status == 200:
            problem = (
                f"the server's answer is longer than {self.max_answer_bytes:,} bytes and was cut off; "
                "raise reviewer.max_answer_bytes if such an answer is right"
            )
            return Answer(None, problem, Usage())
        code, message = error_of(storable(raw))
        said = f"{self._known} answered {status}{f': {message}' if message else ''}"
        # A used-up account answers like a rate limit, but waiting does not fill it.
        passing = status in TRANSIENT_STATUSES or status >= 500
        if passing and code != "insufficient_quota":
            raise TransientError(f"{said}; try again later", status=status)
        return Answer(None, f"{said}; {_remedy(status, code)}", Usage())

    def _outcome(
        self, body: dict[str, Any], blind: bool, answer: Answer, response: str = "", latency_s: float = 0.0
    ) -> ReviewOutcome:
        usage = answer.usage
        return ReviewOutcome(
            reviewer=_name(self.label, blind),
            model=self.model,
            base_url=self._public_url,
            rubric=self.rubric.version,
            rubric_sha256=self.rubric.sha256,
            decision="escalate" if answer.verdict is None else answer.verdict.decision,
            verdict=answer.verdict,
            escalation=answer.problem,
            request=body,
            response=response,
            latency_s=latency_s,
            input_tokens=usage.input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd_micros=self._cost(usage),
        )

    def _cost(self, usage: Usage) -> int | None:
        if self.price is None or usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached = usage.cached_input_tokens or 0
        return self.price.cost_usd_micros(usage.input_tokens, cached, usage.output_tokens)

    @property
    def _key(self) -> str | None:
        """The key without the line end that comes along from files; None where there is none."""
        return (self.api_key.get_secret_value().strip() or None) if self.api_key else None

    def _key_problem(self) -> str | None:
        if self._key is None:
            if self.base_url is not None:
                return None
            return f"there is no API key for {self.model}; set STAGEGATE_REVIEWER_API_KEY or OPENAI_API_KEY"
        # A key with other characters cannot be sent, and errors about headers quote what they refuse.
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            return "the API key holds characters that no key has; set it again, without quotes or spaces"
        return None

    @property
    def _public_url(self) -> str | None:
        return None if self.base_url is None else public_url(self.base_url)

    @property
    def _known(self) -> str:
        return f"{self.model} at {self._public_url}" if self.base_url else self.model


def build_reviewers(
    section: ReviewerSection,
    gate: GateName,
    *,
    primary_key: str | None,
    second_key: str | None,
    today: dt.date,
) -> dict[str, Reviewer]:
    """The reviewers of a gate, `primary` and where configured `second`; here configuration stops.

    The first one's key is not sent to another host: there the second reviewer needs a key of its own.

    Raises:
        ConfigError: an unknown rubric, or a model whose price nobody knows.
    """
    rubric = load_rubric(section.rubric, gate)
    if section.kind == "none":
        return {"primary": NoReviewer(rubric)}
    reviewers: dict[str, Reviewer] = {"primary": _build(section, rubric, primary_key, today, "primary")}
    if section.second is not None:
        if host_of(section.second.base_url or "") == host_of(section.base_url or ""):
            second_key = second_key or primary_key
        elif second_key == primary_key:
            second_key = None
        reviewers["second"] = _build(section.second, rubric, second_key, today, "second")
    return reviewers


def escalated(
    reviewer: str, model: str, base_url: str | None, rubric: str, reason: str, *, rubric_sha256: str = ""
) -> ReviewOutcome:
    """The outcome of a review that did not take place."""
    return ReviewOutcome(
        reviewer=reviewer,
        model=model,
        base_url=base_url and public_url(base_url),
        rubric=rubric,
        rubric_sha256=rubric_sha256,
        decision="escalate",
        verdict=None,
        escalation=reason,
        request={},
        response="",
        latency_s=0.0,
    )


def _build(spec: ReviewerSpec, rubric: Rubric, key: str | None, today: dt.date, label: str) -> OpenAIReviewer:
    if spec.price is None:
        price = price_of(spec.model, today)
    else:
        stated = spec.price
        price = stated_price(stated.input_usd, stated.output_usd, stated.cached_input_usd)
    return OpenAIReviewer(
        model=spec.model,
        rubric=rubric,
        api_key=SecretStr(key) if key else None,
        base_url=spec.base_url,
        effort=spec.effort,
        timeout_s=spec.timeout_s,
        max_output_tokens=spec.max_output_tokens,
        max_answer_bytes=spec.max_answer_bytes,
        price=price,
        label=label,
    )


def verdict_schema() -> dict[str, Any]:
    """The JSON schema of a verdict as strict servers take it.

    OpenAI's strict mode has refused limits of length and titles of fields; lengths are told in words and
    checked when the answer is read.
    """
    schema = _plain_schema(Verdict.model_json_schema())
    assert isinstance(schema, dict)
    return schema


def _plain_schema(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain_schema(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    dropped = ("title", "minLength", "maxLength", "maxItems")
    plain = {
        # Under `properties` the keys are names of fields, and one may be called `title`.
        key: {name: _plain_schema(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _plain_schema(value)
        for key, value in node.items()
        if key not in dropped
    }
    for key, unit in (("maxLength", "characters"), ("maxItems", "entries")):
        if key in node:
            plain["description"] = f"{plain.get('description', '')} At most {node[key]} {unit}.".strip()
    return plain


def _name(label: str, blind: bool) -> str:
    if not blind:
        return label
    return "blind" if label == "primary" else f"{label}-blind"


def _remedy(status: int, code: str) -> str:
    if code == "insufficient_quota":
        return "the account has no credit left"
    if status in (401, 403):
        return "check the API key and what it may use"
    if status == 404:
        return "check reviewer.model and reviewer.base_url"
    if status in (400, 422):
        return "it does not take such a request; check reviewer.model and reviewer.effort"
    return "check reviewer.base_url"
