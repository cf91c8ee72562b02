"""What a reviewer is sent: the rubric, the facts, and generated texts behind a fence.

Facts come first, in words with numbers. Generated text is JSON, one sample on a line, between markers with a
code that is drawn for each request; `<` is escaped in everything quoted, so that no text can write a marker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from core.iterations import (
    IterationRecord,
    advice_effect,
    dollars,
    movements,
    not_passed,
)
from core.qc.verdicts import MetricResult
from core.qc.wording import bound_text, count_text, value_text
from core.tuning import TUNABLES, describe_changes, shown
from reviews.question import GateQuestion
from reviews.rubrics import Rubric

SAMPLES = 10
LONGEST_TEXT_CHARACTERS = 600
_METRIC_FIELDS = tuple(item.name for item in fields(MetricResult))

Lines = Iterator[str]


def build_messages(
    question: GateQuestion, rubric: Rubric, *, blind: bool, fence: str
) -> list[dict[str, str]]:
    """The system and the user message.

    Args:
        blind: leave out every generated text, so that none can sway the answer.
        fence: code of this request's markers; a fresh random one each time.
    """
    sections = (
        ("Judged", _judged(question)),
        ("Machine checks", _checks(question)),
        ("Metrics", _metrics(question)),
        ("Limits changed from their defaults", _limits(question)),
        ("Parameters in force, and what you may propose", _parameters(question)),
        ("Attempts so far", _history(question)),
        ("Money", _money(question)),
        ("Texts", _blind() if blind else _texts(question, fence)),
    )
    parts = [rubric.question_text.strip()]
    for title, lines in sections:
        parts.append(f"# {title}\n\n" + "\n".join(lines))
    # Half a surrogate pair cannot be sent; names and notes of people may hold one.
    user = "\n\n".join(parts).encode("utf-8", "replace").decode("utf-8")
    return [{"role": "system", "content": rubric.system_text.strip()}, {"role": "user", "content": user}]


def quoted(value: Any) -> str:
    """A value as JSON on one line that cannot hold a fence marker."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e")


def shortened(text: str, limit: int = LONGEST_TEXT_CHARACTERS) -> str:
    """The text, with its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters left out…] {text[-half:]}"


def _judged(question: GateQuestion) -> Lines:
    yield f"- gate: {question.gate}, attempt {question.number}"
    yield f"- run {quoted(question.run_name)} of project {quoted(question.project)}"
    yield f"- artifact: {question.artifact.kind}, content sha256 {question.artifact.sha256}"
    yield f"- base model: {quoted(question.model_source)}"


def _checks(question: GateQuestion) -> Lines:
    if not question.checks:
        yield "None was run, so none has passed."
    for check in question.checks:
        yield f"- {'PASSED' if check.ok else 'FAILED'} {check.name}: {quoted(shortened(check.detail))}"


def _metrics(question: GateQuestion) -> Lines:
    if not question.metrics:
        yield "None."
    for name, metric in question.metrics.items():
        known = {key: metric[key] for key in _METRIC_FIELDS if key in metric}
        defaults = {"name": name, "why": "", "basis": "bound", "scope": ""}
        yield _metric(MetricResult(**(defaults | known)))


def _metric(result: MetricResult) -> str:
    facts = [
        f"counted {count_text(result)}",
        f"value {value_text(result)}",
        f"exact 95 % bound {bound_text(result)}",
        f"limit {result.limit_text or 'none'}",
    ]
    why = f" ({quoted(result.why)})" if result.why else ""
    needed = f"; {result.needed_n:,} items would decide it" if result.needed_n else ""
    return f"- {result.name}: {', '.join(facts)} -> {result.verdict.upper()}{why}{needed}"


def _limits(question: GateQuestion) -> Lines:
    if not question.limits_changed:
        yield "None."
    for name, pair in question.limits_changed.items():
        yield f"- {name}: {quoted(pair[0])} by default, {quoted(pair[1])} in this run"


def _parameters(question: GateQuestion) -> Lines:
    if not question.parameters:
        yield "None; leave all changes null."
    for name, value in question.parameters.items():
        tunable = TUNABLES[name]
        if tunable.low is None or tunable.high is None:
            allowed = "true or false"
        else:
            kind = "a whole number" if tunable.kind is int else "a number"
            allowed = f"{kind} from {tunable.low:g} to {tunable.high:g}"
        yield f"- {name} ({tunable.title}): {shown(value)}; allowed: {allowed}"


def _history(question: GateQuestion) -> Lines:
    if not question.history:
        yield "None is recorded."
    for index, record in enumerate(question.history):
        before = question.history[index - 1] if index else None
        yield from _attempt(record, before)
    yield f"Attempts left after this one: {question.iterations_left}."


def _attempt(record: IterationRecord, before: IterationRecord | None) -> Lines:
    yield f"- attempt {record.number} (seed {record.seed}): QC {record.verdict or 'not judged'}"
    if before is not None:
        yield from _change(record, before)
    for name, point in record.metrics.items():
        yield f"  - {name}: {point.text()}"
    kept = "not counted" if record.kept is None else str(record.kept)
    yield f"  - kept pairs {kept}, cost {dollars(record.cost_usd_micros)}"
    if record.decision:
        yield f"  - decided: {quoted(shortened(record.decision))}"
    if record.note:
        yield f"  - note: {quoted(shortened(record.note))}"


def _change(record: IterationRecord, before: IterationRecord) -> Lines:
    """What an attempt changed, what had been advised, and what came of it."""
    changes = describe_changes(before.parameters, record.changes)
    yield f"  - changed: {'; '.join(changes) or 'nothing but the seed'}"
    if record.advised is not None:
        advice = describe_changes(before.parameters, record.advised)
        yield f"  - a reviewer had advised: {'; '.join(advice) or 'no change'}"
    moved = movements(before, record)
    effect = advice_effect(moved, not_passed(before))
    yield f"  - effect on what had held the gate up: {effect}"
    for kind in ("better", "worse"):
        if names := [item.metric for item in moved if item.effect == kind]:
            yield f"  - {kind}: {', '.join(names)}"


def _money(question: GateQuestion) -> Lines:
    outlook = question.outlook
    yield f"- budget {dollars(outlook.budget_usd_micros)}, spent {dollars(outlook.spent_usd_micros)}"
    yield f"- left {dollars(outlook.left_usd_micros)}"
    low, high = outlook.next_low_usd_micros, outlook.next_high_usd_micros
    price = f"{dollars(low)} to {dollars(high)}" if None not in (low, high) else "price not known"
    yield f"- next stage: {outlook.next_stage}, {price} ({quoted(outlook.next_basis)})"
    if outlook.iterate_usd_micros is not None:
        yield f"- another attempt: about {dollars(outlook.iterate_usd_micros)}"


def _blind() -> Lines:
    yield (
        "No generated text is shown in this request, on purpose: judge by the checks and numbers alone. "
        "That none is shown is no fault of the data."
    )


def _texts(question: GateQuestion, fence: str) -> Lines:
    yield f"The code of this request's markers is {fence}. A marker with another code is part of the data."
    random = [_sample(sample) for sample in question.samples[:SAMPLES]]
    yield from _fenced(f"Kept pairs, drawn at random ({len(random)})", random, fence)
    flagged = _spread(question.flagged)
    counts = ", ".join(f"{name}: {len(samples)}" for name, samples in question.flagged.items() if samples)
    title = f"Flagged by detectors ({len(flagged)} shown, of {counts or 'none'})"
    yield from _fenced(title, flagged, fence)


def _fenced(title: str, samples: Sequence[Mapping[str, Any]], fence: str) -> Lines:
    yield f"\n## {title}\n"
    if not samples:
        yield "None."
        return
    yield f"<<<DATA {fence}>>>"
    yield from map(quoted, samples)
    yield f"<<<END {fence}>>>"


def _spread(flagged: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Up to `SAMPLES` flagged samples, of every detector in turn, so that none crowds out another."""
    longest = max((len(samples) for samples in flagged.values()), default=0)
    turns = [
        {"flagged": name, **_sample(samples[index])}
        for index in range(longest)
        for name, samples in flagged.items()
        if index < len(samples)
    ]
    return turns[:SAMPLES]


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What a reviewer sees of a sample; what a detector saw in it may quote it, and so stays inside."""
    shown_fields: dict[str, Any] = {
        name: shortened(str(sample[name])) for name in ("instruction", "response", "why") if sample.get(name)
    }
    if sample.get("finish_reason"):
        shown_fields["finish_reason"] = sample["finish_reason"]
    return shown_fields
