"""Who may open a gate, and with what: machine checks, reviewers, people, in this order of weight.

Nothing here can approve by accident: whatever is missing, late, malformed, doubtful or of two minds ends
with a person, or with no.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.config import RunConfig
from core.errors import ConfigError
from core.tuning import TuningValue, changed_values, next_config, tuning_of
from reviews.question import GateFacts, GateQuestion
from reviews.verdict import ReviewOutcome

AnswerDecision = Literal["approve", "iterate", "reject"]
RefusalKind = Literal["invalid", "approver", "wrong_code", "locked", "late", "submitted"]


@dataclass(frozen=True)
class GateRules:
    """How a gate is decided; the `gates` section of the config."""

    policy: Literal["human", "reviewer", "passing"]
    approvers: tuple[str, ...] = ()
    require_codes: bool = False
    max_wrong_codes: int = 5
    allow_override: bool = False
    wait_hours: float = 72.0


@dataclass(frozen=True)
class GateAnswer:
    """What somebody answered. `changes` are wanted values, whether they differ from those in force or not."""

    decision: str
    reason: str = ""
    approver: str = ""
    code: str = ""
    override: bool = False
    second_approver: str = ""
    second_code: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """sha256 of everything in it, codes too: tells one submission from another."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, default=str).encode()).hexdigest()

    def public(self) -> dict[str, Any]:
        """Everything but the codes, in plain JSON values whatever was given."""
        values = {name: value for name, value in asdict(self).items() if not name.endswith("code")}
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str), parse_constant=str)
        return plain


@dataclass(frozen=True)
class Accepted:
    """An answer that decides the gate. `changes` really change something; `code_steps` are used up."""

    decision: AnswerDecision
    reason: str
    approver: str
    second_approver: str | None = None
    override: bool = False
    changes: Mapping[str, TuningValue] = field(default_factory=dict)
    code_steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An answer that was not taken, with a sentence for the person who gave it.

    `name` is the approver, as listed, whose code was wrong.
    """

    kind: RefusalKind
    message: str
    name: str = ""


class CodeDesk:
    """Checks one-time codes; tells how often a name has failed lately.

    Args:
        step_of: the time step of a right, unused code of an approver; None for a wrong one.
        failures: wrong codes given in this name within the last `WINDOW_MINUTES`.
    """

    WINDOW_MINUTES = 15

    def __init__(self, step_of: Callable[[str, str], int | None], failures: Callable[[str], int]) -> None:
        self.step_of = step_of
        self.failures = failures


def offered(facts: GateFacts, rules: GateRules) -> tuple[AnswerDecision, ...]:
    """The decisions that this gate can take: no approval of failed checks, no iteration too many."""
    options: list[AnswerDecision] = []
    if not facts.failed_checks or rules.allow_override:
        options.append("approve")
    if facts.iterations_left > 0:
        options.append("iterate")
    return (*options, "reject")


def judge_answer(
    answer: GateAnswer, facts: GateFacts, rules: GateRules, config: RunConfig, desk: CodeDesk
) -> Accepted | Refusal:
    """The answer as a decision, or why it cannot be one. All that a form cannot check is checked here."""
    if refusal := _refuse_form(answer, facts, rules):
        return refusal
    approver = _listed(answer.approver, rules)
    if approver is None:
        return Refusal("approver", _not_listed(answer.approver, rules))
    overriding = answer.decision == "approve" and bool(facts.failed_checks)
    people = [(approver, answer.code)]
    if overriding:
        second = _listed(answer.second_approver, rules)
        if refusal := _refuse_second(answer, approver, second, rules):
            return refusal
        people.append((second or "", answer.second_code))
    steps: dict[str, int] = {}
    if rules.require_codes:
        for name, code in people:
            found = _check_code(name, code, rules, desk)
            if isinstance(found, Refusal):
                return found
            steps[name] = found
    changes = _wanted_changes(answer, config)
    if isinstance(changes, Refusal):
        return changes
    return Accepted(
        decision=answer.decision,  # type: ignore[arg-type]
        reason=answer.reason.strip(),
        approver=approver,
        second_approver=people[1][0] if overriding else None,
        override=overriding,
        changes=changes,
        code_steps=steps,
    )


def _refuse_form(answer: GateAnswer, facts: GateFacts, rules: GateRules) -> Refusal | None:
    options = offered(facts, rules)
    if answer.decision not in options:
        return Refusal("invalid", _why_not_offered(answer.decision, facts, options))
    overriding = answer.decision == "approve" and bool(facts.failed_checks)
    if overriding and not answer.override:
        failed = ", ".join(facts.failed_checks)
        return Refusal(
            "invalid",
            f"machine checks failed ({failed}); approving needs `override`, a reason and a second approver",
        )
    plain = answer.decision == "approve" and not overriding
    if not plain and not answer.reason.strip():
        return Refusal("invalid", f"{answer.decision} needs a reason; nothing was decided")
    return None


def _why_not_offered(decision: str, facts: GateFacts, options: Sequence[str]) -> str:
    listed = " or ".join(options)
    if decision == "approve":
        failed = ", ".join(facts.failed_checks)
        return f"failed machine checks cannot be approved away ({failed}); this gate takes {listed}"
    if decision == "iterate":
        return f"no iteration is left after {facts.number}; this gate takes {listed}"
    return f"{decision!r} is no decision; this gate takes {listed}"


def _listed(name: str, rules: GateRules) -> str | None:
    """The approver as listed; any name at all where nobody is listed."""
    name = " ".join(name.split())
    if not rules.approvers:
        return name or None
    return next((known for known in rules.approvers if known.casefold() == name.casefold()), None)


def _not_listed(name: str, rules: GateRules) -> str:
    if not name.strip():
        return "an approver's name is needed; nothing was decided"
    return f"{name!r} is not an approver of this run; it lists {', '.join(rules.approvers)}"


def _refuse_second(answer: GateAnswer, first: str, second: str | None, rules: GateRules) -> Refusal | None:
    if second is None:
        text = "an override needs a second approver"
        return Refusal("approver", f"{text}: {_not_listed(answer.second_approver, rules)}")
    if second.casefold() == first.casefold():
        return Refusal("approver", f"an override needs two people, and {first} is one")
    return None


def _check_code(name: str, code: str, rules: GateRules, desk: CodeDesk) -> int | Refusal:
    failures = desk.failures(name)
    if failures >= rules.max_wrong_codes:
        return Refusal(
            "locked",
            f"{failures} wrong codes in the name of {name} within {desk.WINDOW_MINUTES} minutes; no code of "
            f"{name} is taken until the oldest is that long ago",
        )
    step = desk.step_of(name, code)
    if step is None:
        left = rules.max_wrong_codes - failures - 1
        return Refusal(
            "wrong_code",
            f"the one-time code of {name} is wrong, used or out of date ({left} more tries); nothing was "
            "decided",
            name,
        )
    return step


def _wanted_changes(answer: GateAnswer, config: RunConfig) -> dict[str, TuningValue] | Refusal:
    if answer.decision != "iterate":
        return {}
    changes = changed_values(tuning_of(config), dict(answer.changes))
    try:
        next_config(config, changes, seed=config.run.seed)
    except ConfigError as error:
        return Refusal("invalid", str(error))
    return changes


@dataclass(frozen=True)
class Automatic:
    """A decision that a policy took, and why."""

    decision: AnswerDecision
    reason: str
    changes: Mapping[str, TuningValue] = field(default_factory=dict)


def automatic_decision(
    rules: GateRules,
    question: GateQuestion,
    reviews: Mapping[str, ReviewOutcome],
    suspicious: Sequence[str],
    config: RunConfig,
) -> Automatic | None:
    """What the policy decides by itself; None: a person has to."""
    if rules.policy == "passing":
        return _by_checks(question, reviews, config)
    if rules.policy == "reviewer" and not why_a_person(question, reviews, suspicious):
        names = ", ".join(f"{name} ({outcome.model})" for name, outcome in reviews.items())
        return Automatic("approve", f"every machine check passed and every review says go: {names}")
    return None


def _by_checks(question: GateQuestion, reviews: Mapping[str, ReviewOutcome], config: RunConfig) -> Automatic:
    if question.checks_ok:
        return Automatic("approve", "every machine check passed")
    failed = ", ".join(question.facts.failed_checks)
    if question.iterations_left > 0:
        return Automatic("iterate", f"machine checks failed: {failed}", usable_proposal(reviews, config))
    return Automatic("reject", f"machine checks failed and no iteration is left: {failed}")


def why_a_person(
    question: GateQuestion, reviews: Mapping[str, ReviewOutcome], suspicious: Sequence[str]
) -> list[str]:
    """Everything that keeps policy `reviewer` from opening the gate; empty: nothing does."""
    why = [f"machine check {check.name} failed: {check.detail}" for check in question.checks if not check.ok]
    if not question.checks:
        why.append("no machine check was run")
    if "primary" not in reviews:
        why.append("nobody has reviewed it")
    elif reviews["primary"].decision == "go" and "blind" not in reviews:
        why.append("there is no second look without the generated texts")
    for name, outcome in reviews.items():
        if outcome.decision != "go":
            said = outcome.escalation or outcome.decision
            why.append(f"the {name} review by {outcome.model or 'nobody'} does not say go: {said}")
    why += [f"a sample seems to address the reviewer: {text}" for text in suspicious]
    return why


def usable_proposal(reviews: Mapping[str, ReviewOutcome], config: RunConfig) -> dict[str, TuningValue]:
    """What the first reviewer proposes to change, as far as it fits the config; else nothing."""
    primary = reviews.get("primary")
    if primary is None or primary.verdict is None:
        return {}
    proposal = changed_values(tuning_of(config), primary.verdict.proposal())
    try:
        next_config(config, proposal, seed=config.run.seed)
    except ConfigError:
        return {}
    return proposal
