"""The form of a gate in the Prefect UI, made for what this gate can take.

Built anew for each question, with defaults *and* constraints (Prefect's `with_initial_data` drops the
constraints of a field that it fills): decisions that cannot be taken are not offered, approvers are a list
where one is configured, changes carry the reviewer's proposal and their bounds, and `judged` is a constant:
a form that was opened for other bytes is refused by the server itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field, create_model

from core.tuning import TUNABLES, TuningValue, shown
from reviews.policy import GateAnswer, GateRules, offered
from reviews.question import GateFacts

SHA_DIGITS = 16
REASON_CHARS = 4000
DECIDES = {
    "approve": "approve goes on to the next stage",
    "iterate": "iterate runs another pilot with the changes below and a fresh seed",
    "reject": "reject ends the run",
}


def gate_form(
    facts: GateFacts,
    rules: GateRules,
    artifact_sha256: str,
    current: Mapping[str, TuningValue],
    proposal: Mapping[str, TuningValue],
) -> type[RunInput]:
    """The form class of a gate.

    Args:
        current: tunable values in force. proposal: values that the form is filled with instead.
    """
    options = offered(facts, rules)
    fields: dict[str, Any] = {
        "decision": (Literal[options], Field(description="; ".join(DECIDES[o] for o in options) + ".")),
        "reason": (str, Field("", max_length=REASON_CHARS, description=_reason_text(facts, rules))),
        "approver": _person(rules, "Who decides."),
    }
    if rules.require_codes:
        fields["code"] = (str, _code_field("Your one-time code: six digits, valid for 30 seconds."))
    if "approve" in options and facts.failed_checks:
        fields |= _override_fields(facts, rules)
    if "iterate" in options:
        changes = _changes_model(current, proposal)
        text = "Parameters of the next iteration; used by iterate alone."
        fields["changes"] = (changes, Field(default_factory=changes, description=text))
    judged = artifact_sha256[:SHA_DIGITS]
    text = "What is judged: the content's sha256. If it has changed, this form is refused."
    fields["judged"] = (Literal[judged], Field(judged, description=text))
    return create_model("GateForm", __base__=RunInput, __module__=__name__, **fields)


def _reason_text(facts: GateFacts, rules: GateRules) -> str:
    always = bool(facts.failed_checks)
    return "Required." if always else "Required for everything but a plain approve."


def _person(rules: GateRules, description: str, default: Any = ...) -> tuple[Any, Any]:
    if rules.approvers:
        kind: Any = Literal[rules.approvers]
        return (kind if default is ... else kind | None, Field(default, description=description))
    limits: dict[str, Any] = {"min_length": 1} if default is ... else {}
    return (
        str if default is ... else str | None,
        Field(default, max_length=64, description=description, **limits),
    )


def _code_field(description: str, default: Any = ...) -> Any:
    return Field(default, max_length=16, description=description)


def _override_fields(facts: GateFacts, rules: GateRules) -> dict[str, Any]:
    failed = ", ".join(facts.failed_checks)
    fields: dict[str, Any] = {
        "override": (bool, Field(False, description=f"Approve although these failed: {failed}.")),
        "second_approver": _person(rules, "A second person, needed for an override.", None),
    }
    if rules.require_codes:
        fields["second_code"] = (str, _code_field("The second person's one-time code.", ""))
    return fields


def _changes_model(
    current: Mapping[str, TuningValue], proposal: Mapping[str, TuningValue]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, tunable in TUNABLES.items():
        now = current[name]
        value = proposal.get(name, now)
        text = f"now {shown(now)}" + (f"; the reviewer proposes {shown(value)}" if value != now else "")
        bounds = tunable.bounds_with(now)
        limits: dict[str, Any] = {} if bounds is None else {"ge": bounds[0], "le": bounds[1]}
        fields[name] = (tunable.kind, Field(value, title=tunable.title, description=text, **limits))
    return create_model("Changes", __config__=ConfigDict(extra="forbid"), __module__=__name__, **fields)


def answer_of(form: BaseModel) -> GateAnswer:
    """The answer that a filled form stands for; fields that it does not have are empty."""
    values = form.model_dump(mode="json")
    known = {name: values.get(name) for name in GateAnswer.__dataclass_fields__}
    return GateAnswer(**{name: value for name, value in known.items() if value is not None})
