"""What a person sees at a gate, as markdown: the verdict first, then the numbers, then the texts.

Generated text is data: it stands in the cell of a table with every sign of markup escaped, so that it can
draw nothing, link nowhere, and end no cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.iterations import comparison_rows, dollars
from core.tuning import TUNABLES, shown
from reviews.question import GateQuestion, Outlook
from reviews.verdict import ReviewOutcome

SAMPLES = 10
LONGEST_SAMPLE = 320
MARKUP = r"\`*_{}[]<>()#+-!|~&:"
# Letters and signs that every font has: a machine without an emoji font shows boxes instead.
PASSED, FAILED = "✓ passed", "✗ failed"
METRIC_SIGNS = {
    "pass": "✓ pass",
    "warn": "! warn",
    "fail": "✗ fail",
    "insufficient": "? too few",
    "not_measured": "–",
}
REVIEW_SIGNS = {"go": "✓ go", "no_go": "✗ no go", "iterate": "iterate", "escalate": "to a person"}
QUESTIONS = {
    "premise": "Is there a gap between what this base model shows and what it can do, worth training for?",
    "pilot": "Is this pilot good enough to generate at scale with these parameters?",
    "dataset": "May a model be trained on exactly this dataset?",
    "evaluation": "Does this adapter follow instructions better, and may it be released?",
}


def gate_sheet(
    question: GateQuestion,
    reviews: Mapping[str, ReviewOutcome],
    *,
    notice: str = "",
    why_person: Sequence[str] = (),
) -> str:
    """The whole sheet. `notice` says why the last answer was not taken; it comes first."""
    parts = [
        f"> **Your last answer was not taken:** {_inline(notice)}" if notice else "",
        f"## Gate {question.key} of {_inline(question.run_name)}",
        QUESTIONS[question.gate],
        _summary(question, reviews),
        _checks(question),
        _because(why_person),
        _reviews(reviews),
        _metrics(question),
        _parameters(question, reviews),
        _history(question),
        _samples("Kept pairs, drawn at random", question.samples),
        _flagged(question),
        _judged(question),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(question: GateQuestion, reviews: Mapping[str, ReviewOutcome]) -> str:
    failed = [check.name for check in question.checks if not check.ok]
    checks = "all passed" if question.checks_ok else f"failed: {', '.join(failed) or 'none was run'}"
    said = ", ".join(f"{name}: {REVIEW_SIGNS[o.decision]}" for name, o in reviews.items()) or "nobody"
    rows = [
        ("Machine checks", f"{'✓' if question.checks_ok else '✗'} {_inline(checks)}"),
        ("Reviewer", said),
        ("Next stage", _next(question.outlook)),
        ("Another iteration", _again(question)),
        ("Left of the budget", _left(question.outlook)),
        ("Waiting costs", "nothing: no process of this run is alive"),
    ]  # fmt: skip
    return _table(("", ""), rows)


def _next(outlook: Outlook) -> str:
    if outlook.next_low_usd_micros is None or outlook.next_high_usd_micros is None:
        return f"{outlook.next_stage}: {outlook.next_basis}"
    low, high = dollars(outlook.next_low_usd_micros), dollars(outlook.next_high_usd_micros)
    amount = low if low == high else f"{low} to {high}"
    return f"{outlook.next_stage}: about {amount} ({outlook.next_basis})"


def _checks(question: GateQuestion) -> str:
    rows = [(PASSED if c.ok else FAILED, c.name, c.detail) for c in question.checks]
    changed = [
        ("!", f"limit {name}", f"{values[0]} by default, here {values[1]}")
        for name, values in question.limits_changed.items()
    ]
    return "### Machine checks\n\n" + _table(("", "check", "what was found"), rows + changed)


def _because(why: Sequence[str]) -> str:
    if not why:
        return ""
    return "### Why this needs a person\n\n" + "\n".join(f"- {_inline(text)}" for text in why)


def _reviews(reviews: Mapping[str, ReviewOutcome]) -> str:
    return "\n\n".join(_review(name, outcome) for name, outcome in reviews.items())


def _review(name: str, outcome: ReviewOutcome) -> str:
    head = f"### Review ({name}"
    head += f", {_inline(outcome.model)})" if outcome.model else ")"
    price = "price unknown" if outcome.cost_usd_micros is None else dollars(outcome.cost_usd_micros)
    facts = f"{outcome.latency_s:.1f} s, {price}"
    if outcome.verdict is None:
        return (
            f"{head}\n\n**No verdict, so a person decides:** {_inline(outcome.escalation or '')}  \n{facts}"
        )
    v = outcome.verdict
    lines = [
        f"{head}",
        f"**{REVIEW_SIGNS[outcome.decision]}**, confidence {v.confidence:.0%}, "
        f"priority {v.priority}; {facts}",
        _quote(v.reasoning),
        "\n".join(f"- {_inline(concern)}" for concern in v.concerns),
    ]
    return "\n\n".join(line for line in lines if line)


def _again(question: GateQuestion) -> str:
    cost = question.outlook.iterate_usd_micros
    about = "" if cost is None else f"about {dollars(cost)}, as this one cost; "
    return f"{about}{question.iterations_left} left"


def _left(outlook: Outlook) -> str:
    left, budget, spent = outlook.left_usd_micros, outlook.budget_usd_micros, outlook.spent_usd_micros
    return f"{dollars(left)} of {dollars(budget)}; {dollars(spent)} spent so far"


def _metrics(question: GateQuestion) -> str:
    rows = [
        (
            METRIC_SIGNS.get(str(metric["verdict"]), ""),
            name.replace("_", " "),
            _counted(metric),
            _number(metric["value"], metric["unit"]),
            _number(metric["bound"], metric["unit"]),
            str(metric["limit_text"]),
        )
        for name, metric in question.metrics.items()
    ]
    if not rows:
        return ""
    return "### Quality control\n\n" + _table(("", "metric", "count", "value", "95 % bound", "limit"), rows)


def _counted(metric: Mapping[str, Any]) -> str:
    if metric["numerator"] is None:
        return ""
    return f"{metric['numerator']} / {metric['denominator']}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if unit == "ratio" else f"{value:g}"


def _parameters(question: GateQuestion, reviews: Mapping[str, ReviewOutcome]) -> str:
    primary = reviews.get("primary")
    proposal = primary.verdict.proposal() if primary is not None and primary.verdict is not None else {}
    rows = [
        (
            TUNABLES[name].title,
            shown(value),
            shown(proposal[name]) if name in proposal and proposal[name] != value else "",
        )
        for name, value in question.parameters.items()
    ]
    return "### Parameters\n\n" + _table(("", "in force", "reviewer proposes"), rows)


def _history(question: GateQuestion) -> str:
    if len(question.history) < 2:
        return ""
    rows = [row for row in comparison_rows(question.history) if _tells(row)]
    heads = tuple(rows[0])
    body = [tuple(row[head] for head in heads) for row in rows]
    return "### Iterations side by side\n\n" + _table(heads, body) + "\n\n\\* changed in this iteration"


def _tells(row: Mapping[str, str]) -> bool:
    """Whether a row says more than the other tables: a parameter that nobody changed does not."""
    titles = {tunable.title.lower() for tunable in TUNABLES.values()}
    return row[""] not in titles or any(value.endswith("*") for value in row.values())


def _samples(title: str, samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    flagged = any(sample.get("why") for sample in samples)
    heads = ("instruction", "response", *(["what was seen"] if flagged else []))
    rows = [
        tuple(_escape(_shortened(str(sample.get(key) or ""))) for key in ("instruction", "response", "why"))
        for sample in samples[:SAMPLES]
    ]
    return f"### {title}\n\n" + _table(heads, [row[: len(heads)] for row in rows], raw=True)


def _flagged(question: GateQuestion) -> str:
    parts = [
        _samples(f"Flagged: {name.replace('_', ' ')}", samples) for name, samples in question.flagged.items()
    ]
    return "\n\n".join(part for part in parts if part)


def _judged(question: GateQuestion) -> str:
    artifact = question.artifact
    rows = [
        ("artifact", f"{artifact.kind} in `{artifact.path}`"),
        ("content sha256", _hash(artifact.sha256)),
        ("manifest sha256", _hash(artifact.manifest_sha256)),
        ("config hash", _hash(question.config_hash)),
        ("base model", _inline(question.model_source)),
        *((title, f"`{place}`") for title, place in question.links.items()),
    ]
    return "### What is judged\n\nThe decision binds to these hashes and to nothing else.\n\n" + _table(
        ("", ""), rows, raw=True
    )


def _hash(digits: str) -> str:
    """A hash in groups of 16, so that it wraps in a narrow form."""
    return " ".join(digits[i : i + 16] for i in range(0, len(digits), 16))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c if raw else _cell(c) for c in cells) + " |"

    return "\n".join([line(heads), "|" + " --- |" * len(heads), *map(line, rows)])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|").replace("<", "&lt;")


def _inline(text: str) -> str:
    """Text of others on one line, with no markup of its own."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|~" else c for c in " ".join(text.split()))


def _escape(text: str) -> str:
    """Text of others on one line, its line breaks shown, with no markup of its own."""
    line = " ⏎ ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(f"\\{c}" if c in MARKUP else c for c in line)


def _quote(text: str) -> str:
    return "\n>\n".join(f"> {_escape(part)}" for part in text.splitlines() if part.strip())


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_SAMPLE:
        return text
    half = LONGEST_SAMPLE // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"
