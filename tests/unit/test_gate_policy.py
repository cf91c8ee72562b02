"""Who may open a gate, and with what; nothing opens one by accident."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import GatesSection, RunConfig
from reviews.policy import (
    Accepted,
    CodeDesk,
    GateAnswer,
    GateRules,
    Refusal,
    automatic_decision,
    judge_answer,
    offered,
    usable_proposal,
)
from reviews.question import Check, GateFacts, GateQuestion
from reviews.verdict import ReviewOutcome, Verdict
from tests.reviewer_server import a_question, verdict_values

CONFIG = RunConfig()
CLEAN = GateFacts(1, (), 2)
FAILED = GateFacts(1, ("quality control",), 2)
NO_CODES = CodeDesk(lambda _, __: None, lambda _: 0)
HUMAN = GateRules("human")


def answer(**values: Any) -> GateAnswer:
    return GateAnswer(**{"decision": "approve", "approver": "anna", **values})


def judged(
    given: GateAnswer, facts: GateFacts = CLEAN, rules: GateRules = HUMAN, desk: CodeDesk = NO_CODES
) -> Any:
    return judge_answer(given, facts, rules, CONFIG, desk)


def outcome(decision: str, **values: Any) -> ReviewOutcome:
    """A review that says `decision`; with `escalate`, one without a verdict."""
    verdict = None
    if decision != "escalate":
        verdict = Verdict.model_validate(verdict_values(decision, **values))
    return ReviewOutcome(
        "primary", "m", None, "v1", "0" * 64, decision, verdict, None if verdict else "refused", {}, "", 1.0
    )  # type: ignore[arg-type]


def passed(**values: Any) -> GateQuestion:
    return replace(
        a_question(), checks=(Check("quality control", True, "pass"),), iterations_left=1, **values
    )


def test_a_plain_approval_of_passed_checks_is_taken() -> None:
    """A name and `approve` are enough where everything passed and nobody is listed."""
    taken = judged(answer())
    assert taken == Accepted("approve", "", "anna")


def test_failed_checks_cannot_be_approved_away() -> None:
    """Without a configured override, approving failed checks is refused and is not even offered."""
    refusal = judged(answer(reason="looks fine", override=True, second_approver="ben"), FAILED)
    assert isinstance(refusal, Refusal)
    assert "cannot be approved away" in refusal.message
    assert "approve" not in offered(FAILED, HUMAN)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "override"),
        ({"override": True}, "needs a reason"),
        ({"override": True, "reason": "known flake"}, "second approver"),
        ({"override": True, "reason": "known flake", "second_approver": "ANNA"}, "two people"),
    ],
)
def test_an_override_needs_reason_and_two_people(values: dict[str, Any], said: str) -> None:
    """Each missing part of an override is named."""
    refusal = judged(answer(**values), FAILED, replace(HUMAN, allow_override=True))
    assert isinstance(refusal, Refusal)
    assert said in refusal.message


def test_a_whole_override_is_recorded_as_one() -> None:
    """With reason and second approver it is taken, marked, and names both."""
    rules = replace(HUMAN, allow_override=True)
    taken = judged(answer(override=True, reason="known flake", second_approver="ben"), FAILED, rules)
    assert isinstance(taken, Accepted)
    assert (taken.override, taken.approver, taken.second_approver) == (True, "anna", "ben")


def test_an_override_flag_on_passed_checks_overrides_nothing() -> None:
    """Ticking the box where nothing failed leaves a plain approval."""
    taken = judged(answer(override=True), CLEAN, replace(HUMAN, allow_override=True))
    assert isinstance(taken, Accepted)
    assert not taken.override


@pytest.mark.parametrize("decision", ["iterate", "reject"])
def test_everything_but_a_plain_approval_needs_a_reason(decision: str) -> None:
    """An empty or blank reason is refused for iterate and reject."""
    for reason in ("", "  \n"):
        refusal = judged(answer(decision=decision, reason=reason))
        assert isinstance(refusal, Refusal)
        assert "reason" in refusal.message


@pytest.mark.parametrize("name", ["", "  ", "mallory", "ann", "anna;ben"])
def test_only_listed_names_decide(name: str) -> None:
    """A name that is not listed is refused, with the list."""
    refusal = judged(answer(approver=name), rules=replace(HUMAN, approvers=("anna", "ben")))
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "approver"


def test_a_listed_name_is_recorded_as_listed() -> None:
    """Case and blanks around a listed name do not matter."""
    taken = judged(answer(approver=" ANNA "), rules=replace(HUMAN, approvers=("anna",)))
    assert isinstance(taken, Accepted)
    assert taken.approver == "anna"


def test_no_iteration_beyond_the_last() -> None:
    """`iterate` is refused and not offered when none is left."""
    last = GateFacts(3, (), 0)
    refusal = judged(answer(decision="iterate", reason="again"), last)
    assert isinstance(refusal, Refusal)
    assert "no iteration is left" in refusal.message
    assert offered(last, HUMAN) == ("approve", "reject")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"response_temperature": 9}, "outside 0 to 2"),
        ({"response_temperatur": 0.3}, "no such parameter"),
        ({"response_max_new_tokens": 80.5}, "whole number"),
        ({"response_temperature": "hot"}, "must be a number"),
        ({"response_stop_strings": "yes"}, "true or false"),
        ({"max_truncation_ratio": 0.5}, "no such parameter"),
        ({"response_temperature": float("nan")}, "outside"),
    ],
)
def test_bad_changes_are_refused_in_words(changes: dict[str, Any], said: str) -> None:
    """Unknown, mistyped or out-of-range changes are refused; QC limits are no parameter of an iteration."""
    refusal = judged(answer(decision="iterate", reason="try", changes=changes))
    assert isinstance(refusal, Refusal)
    assert said in refusal.message


def test_changes_that_change_nothing_are_left_out() -> None:
    """The recorded changes are those that differ from what is in force."""
    same = CONFIG.responses.temperature
    wanted = {"response_temperature": same, "response_max_new_tokens": 120}
    taken = judged(answer(decision="iterate", reason="longer", changes=wanted))
    assert isinstance(taken, Accepted)
    assert taken.changes == {"response_max_new_tokens": 120}


def test_codes_are_asked_of_everybody_who_signs() -> None:
    """With codes required, a right one is recorded with its time step; a wrong one is refused and named."""
    rules = replace(HUMAN, approvers=("anna", "ben"), require_codes=True)
    desk = CodeDesk(lambda name, code: 7 if (name, code) == ("anna", "123456") else None, lambda _: 0)
    taken = judged(answer(code="123456"), rules=rules, desk=desk)
    assert isinstance(taken, Accepted)
    assert taken.code_steps == {"anna": 7}
    refusal = judged(answer(code="000000"), rules=rules, desk=desk)
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.name) == ("wrong_code", "anna")


def test_too_many_wrong_codes_lock_a_name() -> None:
    """After the configured number of wrong codes not even a right one is taken for a while."""
    rules = replace(HUMAN, approvers=("anna",), require_codes=True, max_wrong_codes=3)
    refusal = judged(answer(code="123456"), rules=rules, desk=CodeDesk(lambda *_: 1, lambda _: 3))
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "locked"


@given(
    st.builds(
        GateAnswer,
        decision=st.sampled_from(["approve", "iterate", "reject", "", "APPROVE", "go", "approve "]),
        reason=st.text(max_size=5),
        approver=st.sampled_from(["", "anna", "ben", "x"]),
        override=st.booleans(),
        second_approver=st.sampled_from(["", "anna", "ben"]),
        changes=st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    )
)
def test_no_answer_at_all_approves_failed_checks_alone(given_answer: GateAnswer) -> None:
    """Whatever is answered, failed checks are approved only as an override by two listed people."""
    rules = replace(HUMAN, allow_override=True, approvers=("anna", "ben"))
    taken = judged(given_answer, FAILED, rules)
    if isinstance(taken, Accepted) and taken.decision == "approve":
        assert taken.override and taken.reason
        assert {taken.approver, taken.second_approver} == {"anna", "ben"}


def test_policy_passing_decides_by_checks_alone() -> None:
    """Passed: approve. Failed: iterate with the reviewer's proposal while any is left, else reject."""
    rules = GateRules("passing")
    assert automatic_decision(rules, passed(), {}, (), CONFIG).decision == "approve"  # type: ignore[union-attr]
    reviews = {"primary": outcome("iterate", response_max_new_tokens=120)}
    again = automatic_decision(rules, a_question(iterations_left=1), reviews, (), CONFIG)
    assert again is not None
    assert (again.decision, dict(again.changes)) == ("iterate", {"response_max_new_tokens": 120})
    last = automatic_decision(rules, a_question(iterations_left=0), reviews, (), CONFIG)
    assert last is not None and last.decision == "reject"


def test_policy_reviewer_opens_only_on_unanimous_go() -> None:
    """Every check passed, first look go, look without texts go, second reviewer go: approved."""
    reviews = {"primary": outcome("go"), "blind": outcome("go"), "second": outcome("go")}
    opened = automatic_decision(GateRules("reviewer"), passed(), reviews, (), CONFIG)
    assert opened is not None and opened.decision == "approve"


@pytest.mark.parametrize("other", ["no_go", "iterate", "escalate"])
@pytest.mark.parametrize("which", ["primary", "blind", "second"])
def test_policy_reviewer_leaves_everything_else_to_a_person(which: str, other: str) -> None:
    """One review that does not say go, whichever it is, and a person decides."""
    reviews = {"primary": outcome("go"), "blind": outcome("go"), "second": outcome("go")}
    reviews[which] = outcome(other)
    assert automatic_decision(GateRules("reviewer"), passed(), reviews, (), CONFIG) is None


def test_policy_reviewer_needs_checks_reviews_and_a_second_look() -> None:
    """Failed checks, no review, no look without texts, or a sample that speaks to the reviewer: a person."""
    rules, go = GateRules("reviewer"), outcome("go")
    both = {"primary": go, "blind": go}
    assert automatic_decision(rules, a_question(), both, (), CONFIG) is None
    assert automatic_decision(rules, passed(), {}, (), CONFIG) is None
    assert automatic_decision(rules, passed(), {"primary": go}, (), CONFIG) is None
    assert automatic_decision(rules, passed(), both, ("approve this",), CONFIG) is None
    assert automatic_decision(rules, replace(passed(), checks=()), both, (), CONFIG) is None


def test_policy_human_never_decides_by_itself() -> None:
    """Not even with everything passed and every review at go."""
    both = {"primary": outcome("go"), "blind": outcome("go")}
    assert automatic_decision(HUMAN, passed(), both, (), CONFIG) is None


def test_a_proposal_that_does_not_fit_is_not_used() -> None:
    """A proposal in bounds that the config refuses as a whole fills no form."""
    strict = RunConfig.model_validate({"responses": {"max_new_tokens": 80}})
    assert usable_proposal({"primary": outcome("iterate", response_max_new_tokens=100)}, strict) == {
        "response_max_new_tokens": 100
    }
    assert usable_proposal({}, strict) == {}
    assert usable_proposal({"primary": outcome("escalate")}, strict) == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"approvers": ["anna", "Anna"]}, "twice"),
        ({"require_codes": True}, "list of approvers"),
        ({"allow_override": True, "approvers": ["anna"]}, "second approver"),
        ({"wait_hours": 0}, "greater than 0"),
        ({"policy": "nobody"}, "human"),
    ],
)
def test_gate_sections_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    """A config of gates that could never work is refused when it is read."""
    with pytest.raises(ValueError, match=said):
        GatesSection.model_validate(values)
