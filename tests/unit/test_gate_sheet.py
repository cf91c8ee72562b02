"""The sheet, the form and the iteration table: what a person is shown, and what generated text cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import RunConfig, dump_yaml, parse_yaml
from core.errors import ConfigError, DataFileError
from core.iterations import (
    IterationRecord,
    MetricPoint,
    advice_effect,
    comparison_rows,
    effect_of,
    movements,
    not_passed,
    read_records,
)
from core.tuning import TUNABLES, check_changes, next_config, tuning_of
from flows.forms import answer_of, gate_form
from reviews.policy import GateRules
from reviews.question import GateFacts
from reviews.sheet import gate_sheet
from tests.reviewer_server import a_question

ROOT = Path(__file__).resolve().parents[2]
CONFIG = RunConfig()
NOW = tuning_of(CONFIG)


def test_the_sheet_shows_everything_that_a_decision_rests_on() -> None:
    """Hashes, checks, bounds, samples, money and parameters are on it; a refused answer comes first."""
    question = a_question()
    sheet = gate_sheet(question, {}, notice="the code was wrong", why_person=["nobody has reviewed it"])
    assert sheet.startswith("> **Your last answer was not taken:** the code was wrong")
    joined = sheet.replace(" ", "")
    for expected in (question.artifact.sha256, question.artifact.manifest_sha256, question.config_hash):
        assert expected in joined
    for expected in (
        "6.3 %",
        "3 / 120",
        "Name three colours",
        "$288.00",
        "Response temperature",
        "nobody has",
    ):
        assert expected in sheet


@given(st.text(max_size=80))
def test_generated_text_stays_in_its_cell(text: str) -> None:
    """Whatever a model writes, its sample is one table row with no live markup in it."""
    marked = f"ONE{text}END"
    question = a_question()
    sample = {**question.samples[0], "response": marked}
    lines = gate_sheet(replace(question, samples=(sample,)), {}).splitlines()
    row = next(line for line in lines if "Name three colours" in line and "ONE" in line)
    assert row.startswith("| ") and row.endswith(" |")
    inner = row.replace("\\\\", "").replace("\\|", "")
    assert inner.count("|") == 3
    assert "END" in row


@pytest.mark.parametrize(
    "text", ["![x](http://evil)", "<script>alert(1)</script>", "**approve**", "# Approved", "```"]
)
def test_markup_of_a_model_is_inert(text: str) -> None:
    """Images, scripts, emphasis, headings and fences come out escaped."""
    question = a_question()
    sheet = gate_sheet(replace(question, samples=({**question.samples[0], "response": text},)), {})
    row = next(line for line in sheet.splitlines() if "Name three colours" in line)
    assert f" {text}" not in row
    assert f"\\{text[0]}" in row


def form(facts: GateFacts, rules: GateRules, **proposal: Any) -> Any:
    return gate_form(facts, rules, "ab" * 32, NOW, proposal)


def test_the_form_offers_what_the_gate_can_take() -> None:
    """Failed checks take `approve` away, no iteration left takes `iterate` and its parameters away."""
    schema = form(GateFacts(1, ("quality control",), 2), GateRules("human")).model_json_schema()
    assert schema["properties"]["decision"]["enum"] == ["iterate", "reject"]
    assert "override" not in schema["properties"]
    schema = form(GateFacts(3, (), 0), GateRules("human")).model_json_schema()
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    assert "changes" not in schema["properties"]


def test_the_form_asks_for_codes_and_second_people_where_the_rules_do() -> None:
    """Codes, override and a second approver appear with the rules that want them; approvers are a list."""
    rules = GateRules("human", approvers=("anna", "ben"), require_codes=True, allow_override=True)
    schema = form(GateFacts(1, ("quality control",), 2), rules).model_json_schema()
    assert {"code", "override", "second_approver", "second_code"} <= set(schema["properties"])
    assert schema["properties"]["approver"]["enum"] == ["anna", "ben"]
    assert "code" in schema["required"]


def test_the_form_carries_the_proposal_with_bounds() -> None:
    """Changes are filled with the proposal, say what is in force, and keep their bounds."""
    made = form(GateFacts(1, (), 2), GateRules("human"), response_temperature=0.3)
    changes = made.model_json_schema()["$defs"]["Changes"]["properties"]
    assert changes["response_temperature"]["default"] == 0.3
    assert changes["response_temperature"]["maximum"] == 2
    assert changes["response_temperature"]["description"] == "now 0.4; the reviewer proposes 0.3"
    filled = made.model_validate(
        {"decision": "iterate", "reason": "x", "approver": "anna", "judged": "ab" * 8}
    )
    assert answer_of(filled).changes["response_temperature"] == 0.3


def test_a_form_of_other_bytes_does_not_validate() -> None:
    """`judged` is a constant: a form that was opened for something else is refused."""
    with pytest.raises(ValueError, match="judged"):
        form(GateFacts(1, (), 2), GateRules("human")).model_validate(
            {"decision": "approve", "approver": "anna", "judged": "cd" * 8}
        )


def test_a_value_beyond_the_bounds_that_is_in_force_stays_allowed() -> None:
    """A config outside the usual bounds can still iterate without touching that value."""
    config = RunConfig.model_validate({"responses": {"max_new_tokens": 4000}})
    current = tuning_of(config)
    assert check_changes(current, {"response_max_new_tokens": 4000}) == {"response_max_new_tokens": 4000}
    made = gate_form(GateFacts(1, (), 2), GateRules("human"), "ab" * 32, current, {})
    filled = made.model_validate({"decision": "iterate", "reason": "x", "approver": "anna"})
    assert answer_of(filled).changes["response_max_new_tokens"] == 4000


def test_the_next_config_has_the_changes_and_another_seed() -> None:
    """Only the named values and the seed differ; the hash does, too."""
    after = next_config(CONFIG, {"response_stop_strings": False, "response_temperature": 0.3}, seed=43)
    assert (after.responses.use_stop_strings, after.responses.temperature, after.run.seed) == (False, 0.3, 43)
    assert after.config_hash() != CONFIG.config_hash()
    with pytest.raises(ConfigError, match="no such parameter"):
        next_config(CONFIG, {"qc.max_runaway_ratio": 1}, seed=43)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.booleans()
            if tunable.low is None
            else st.integers(int(tunable.low) + 1, int(tunable.high or 0))
            for name, tunable in TUNABLES.items()
            if tunable.kind is not float
        },
    )
)
def test_an_iterated_config_survives_its_yaml(changes: dict[str, Any]) -> None:
    """Config to YAML and back is the same config, whatever was changed."""
    config = next_config(CONFIG, changes, seed=1)
    assert parse_yaml(dump_yaml(config)) == config


def record(number: int, **metrics: float) -> IterationRecord:
    points = {name: MetricPoint(value, verdict="fail") for name, value in metrics.items()}
    return IterationRecord(number, 41 + number, NOW, points, "fail")


def test_advice_is_judged_metric_by_metric() -> None:
    """Less runaway is better, less acceptance is worse, a difference within noise is none."""
    moved = movements(
        record(1, runaway=0.2, pair_acceptance=0.6, truncation=0.01),
        record(2, runaway=0.5, pair_acceptance=0.7, truncation=0.011, unsafe=0.0),
    )
    assert {m.metric: m.effect for m in moved} == {
        "runaway": "worse",
        "pair_acceptance": "better",
        "truncation": "same",
        "unsafe": "unknown",
    }
    assert advice_effect(moved, not_passed(record(1, runaway=0.2))) == "worse"


@given(st.floats(0, 1), st.floats(0, 1))
def test_better_one_way_is_worse_the_other(before: float, after: float) -> None:
    """The judgement is antisymmetric."""
    opposite = {"better": "worse", "worse": "better", "same": "same", "unknown": "unknown"}
    assert effect_of("runaway", before, after) == opposite[effect_of("runaway", after, before)]


def test_the_reference_run_ships_as_an_example() -> None:
    """Its three iterations with the published numbers: lower temperatures made runaway worse."""
    records = read_records(ROOT / "examples" / "reference_run.yaml")
    rows = {row[""]: row for row in comparison_rows(records)}
    assert rows["runaway"] == {
        "": "runaway",
        "iteration 1": "20.9 % fail",
        "iteration 2": "53.8 % fail",
        "iteration 3": "pass (no number recorded)",
    }
    assert rows["stop strings"]["iteration 3"] == "on *"
    assert rows["cost"]["iteration 1"] == "$2.00"
    assert "worse: runaway" in rows["against the one before"]["iteration 2"]
    assert sum(r.cost_usd_micros or 0 for r in records) == 5_500_000


@pytest.mark.parametrize(
    "content", ["", "iterations: 3", "iterations: [{}]", "iterations: [1]", "a: [", "\x00"]
)
def test_a_file_of_another_form_is_named(tmp_path: Path, content: str) -> None:
    """A file without iterations in it is refused with its name."""
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(DataFileError, match=r"x\.yaml"):
        read_records(path)
