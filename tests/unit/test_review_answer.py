"""Reading answers: only an exact verdict is one, whatever bytes come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tuning import TUNABLES
from reviews.answer import NotAVerdictError, parse_verdict, read_answer, read_usage
from reviews.openai_reviewer import verdict_schema
from reviews.verdict import Verdict
from tests.reviewer_server import completion, verdict_values

VALID = json.dumps(verdict_values())
any_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


def _is_verdict(text: str | bytes) -> bool:
    """A second opinion, by the plain way: JSON that the model takes."""
    try:
        Verdict.model_validate(json.loads(text))
    except (ValueError, RecursionError):
        return False
    return True


@given(st.text() | st.binary() | any_json.map(json.dumps))
def test_reading_is_total_and_never_approves_by_accident(text: str | bytes) -> None:
    """Any text or bytes give a verdict or a sentence, and a verdict only for what is exactly one."""
    try:
        parse_verdict(text)
    except NotAVerdictError as error:
        assert str(error)
    else:
        assert _is_verdict(text)
    answer = read_answer(text)
    assert (answer.verdict is None) != (answer.problem is None)
    assert answer.verdict is None


@given(st.text(min_size=1, max_size=30), st.booleans())
def test_anything_around_a_verdict_makes_it_none(extra: str, before: bool) -> None:
    """A valid verdict with more than JSON white space before or after it is refused."""
    text = extra + VALID if before else VALID + extra
    if extra.strip(" \t\r\n"):
        with pytest.raises(NotAVerdictError):
            parse_verdict(text)
    else:
        assert parse_verdict(text).decision == "go"


@given(st.integers(0, len(VALID) - 1), st.characters(exclude_categories=("Cs",)))
def test_a_verdict_with_a_changed_character_is_exact_or_none(place: int, character: str) -> None:
    """After one character was replaced the text is still read as it stands, or refused."""
    text = VALID[:place] + character + VALID[place + 1 :]
    try:
        verdict = parse_verdict(text)
    except NotAVerdictError:
        return
    assert verdict == Verdict.model_validate(json.loads(text))


@given(st.dictionaries(st.sampled_from([*verdict_values(), "else"]), any_json))
def test_a_verdict_with_changed_fields_is_exact_or_none(changed: dict[str, Any]) -> None:
    """Fields of other types and values are refused unless they are valid themselves."""
    text = json.dumps(verdict_values() | changed)
    answer = read_answer(json.dumps(completion(text)))
    assert (answer.verdict is not None) <= _is_verdict(text)


@given(any_json)
def test_any_envelope_is_survived(envelope: Any) -> None:
    """Whatever stands where choices and usage should be, there is an answer or a sentence."""
    for body in (envelope, {"choices": envelope}, {"choices": [envelope]}, completion("{}", usage=envelope)):
        answer = read_answer(json.dumps(body))
        assert answer.verdict is None and answer.problem


def test_every_proposal_within_its_bounds_is_taken_and_none_outside() -> None:
    """Each tunable is accepted at both bounds and refused just beyond them, and so is another type."""
    for name, tunable in TUNABLES.items():
        if tunable.low is None or tunable.high is None:
            good, bad = [True, False, None], [1, "on"]
        else:
            step = 1 if tunable.kind is int else 0.001
            low, high = tunable.kind(tunable.low), tunable.kind(tunable.high)
            good, bad = [low, high, None], [low - step, high + step, str(low), True]
        for value in good:
            assert parse_verdict(json.dumps(verdict_values("iterate", **{name: value}))).decision == "iterate"
        for value in bad:
            with pytest.raises(NotAVerdictError, match=name):
                parse_verdict(json.dumps(verdict_values("iterate", **{name: value})))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"decision": ' + "9" * 10_000 + "}",
        json.dumps(verdict_values() | {"confidence": 0.5}).replace("0.5", "1e999"),
        json.dumps(verdict_values() | {"reasoning": "a\0b"}),
        json.dumps(verdict_values() | {"reasoning": "\ud800"}),
        json.dumps(verdict_values() | {"reasoning": ""}),
        json.dumps(verdict_values() | {"reasoning": "x" * 6001}),
        json.dumps(verdict_values() | {"confidence": True}),
        "\ufeff" + VALID,
        "null",
        f"[{VALID}]",
        json.dumps(VALID),
    ],
)
def test_hostile_json_is_refused_in_words(text: str) -> None:
    """Deep nesting, endless numbers, NUL, half surrogates, byte order marks and wrappers are no verdict."""
    with pytest.raises(NotAVerdictError) as caught:
        parse_verdict(text)
    assert 0 < len(str(caught.value)) < 700


def test_a_verdict_of_the_wrong_form_is_told_field_by_field() -> None:
    """The sentence names the fields at fault, a handful at most."""
    with pytest.raises(NotAVerdictError) as caught:
        parse_verdict('{"decision": "maybe", "confidence": 2}')
    text = str(caught.value)
    assert "decision: " in text and "confidence: " in text and "reasoning: Field required" in text
    with pytest.raises(NotAVerdictError, match="and 4 more"):
        parse_verdict(json.dumps(verdict_values() | {f"x{n}": 1 for n in range(10)}))


@pytest.mark.parametrize(
    ("usage", "counts", "faults"),
    [
        (None, (None, None, None, None), ""),
        ({}, (None, None, None, None), ""),
        ([1], (None, None, None, None), "no object"),
        ({"prompt_tokens": 5, "completion_tokens": 2}, (5, None, 2, None), ""),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
            (5, None, None, None),
            "cached",
        ),
        ({"prompt_tokens": True, "completion_tokens": 2.0}, (None,) * 4, "input_tokens, output_tokens"),
        ({"prompt_tokens": "5", "completion_tokens": 10**12}, (None,) * 4, "input_tokens, output_tokens"),
        (
            {"completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 3}},
            (None, None, 2, None),
            "reasoning",
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, (5, None, None, None), ""),
    ],
)
def test_token_counts_are_believed_only_where_they_can_be_true(
    usage: Any, counts: tuple[int | None, ...], faults: str
) -> None:
    """What is absent is unknown; what is negative, no integer or contradictory is unknown with a note."""
    read = read_usage(usage)
    found = (read.input_tokens, read.cached_input_tokens, read.output_tokens, read.reasoning_tokens)
    assert found == counts
    assert (read.note is None) == (not faults) and faults in (read.note or "")


def test_the_schema_that_is_sent_is_one_that_strict_servers_take() -> None:
    """Objects list all fields as required and forbid others; no keyword is used that strict mode refused."""

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
                assert node["required"] == list(node["properties"])
            assert not {"title", "default", "minLength", "maxLength", "maxItems"} & node.keys()
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for item in node:
                check(item)

    schema = verdict_schema()
    check(schema)
    assert "At most 6000 characters" in schema["properties"]["reasoning"]["description"]
    assert "priority" in schema["properties"] and schema["$defs"]["ProposedChanges"]
