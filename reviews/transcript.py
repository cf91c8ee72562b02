"""A review as a file to read: what was decided and why, what it cost, then all that went to and fro."""

from __future__ import annotations

import json
import re

from core.iterations import dollars
from core.tuning import shown
from reviews.answer import read_answer
from reviews.question import GateQuestion
from reviews.verdict import ReviewOutcome, Verdict


def transcript_markdown(question: GateQuestion, outcome: ReviewOutcome) -> str:
    """The whole review as markdown; texts of others stand in code blocks that they cannot end."""
    parts = [
        f"# Review of gate {question.key} by {outcome.reviewer}",
        f"**Decision: {outcome.decision}**",
        _verdict(outcome.verdict)
        if outcome.verdict
        else _fenced(outcome.escalation or "no reason was given"),
        _facts(question, outcome),
    ]
    for number, message in enumerate(outcome.request.get("messages", []), start=1):
        parts += [f"## Message {number}: {message['role']}", _fenced(message["content"])]
    parts += [
        "## Request as it was sent",
        _fenced(json.dumps(outcome.request, indent=2, ensure_ascii=False), "json"),
        "## Response as it came",
        _fenced(outcome.response or "none"),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(verdict: Verdict) -> str:
    proposed = [f"{name} = {shown(value)}" for name, value in verdict.proposal().items()]
    lines = [
        f"Confidence {verdict.confidence:.0%}, priority {verdict.priority}.",
        f"Proposed changes: {', '.join(proposed) or 'none'}.",
        _fenced(verdict.reasoning),
    ]
    if verdict.concerns:
        listed = "\n".join(f"- {' '.join(concern.split())}" for concern in verdict.concerns)
        lines += ["Concerns:", _fenced(listed)]
    return "\n\n".join(lines)


def _facts(question: GateQuestion, outcome: ReviewOutcome) -> str:
    note = read_answer(outcome.response).usage.note if outcome.response else None
    server = outcome.base_url or "OpenAI"
    rows = [
        ("model", f"{outcome.model or 'none'} ({server})" if outcome.model else "none"),
        ("rubric", f"{outcome.rubric}, sha256 {outcome.rubric_sha256}"),
        ("judged", f"{question.artifact.kind}, sha256 {question.artifact.sha256}"),
        ("input tokens", f"{_count(outcome.input_tokens)}, cached {_count(outcome.cached_input_tokens)}"),
        ("output tokens", f"{_count(outcome.output_tokens)}, reasoning {_count(outcome.reasoning_tokens)}"),
        ("price", "not known" if outcome.cost_usd_micros is None else dollars(outcome.cost_usd_micros)),
        ("latency", f"{outcome.latency_s:.1f} s"),
    ]
    if note:
        rows.append(("note", note))
    return _fenced("\n".join(f"{name}: {' '.join(text.split())}" for name, text in rows))


def _count(tokens: int | None) -> str:
    return "not reported" if tokens is None else f"{tokens:,}"


def _fenced(text: str, language: str = "") -> str:
    """A code block; its fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
