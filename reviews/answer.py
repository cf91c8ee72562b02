"""From the bytes of a server's answer to a verdict, or to a sentence that says why there is none.

Total: any bytes at all give one or the other. JSON is read strictly, in the envelope and in the verdict:
one object, nothing around it, no name twice, no NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from reviews.verdict import Verdict

MOST_TOKENS = 100_000_000
"""More than any model takes or gives: a count above it is a fault of the server, not a bill."""

_EXCERPT_CHARACTERS = 120
_LISTED_PROBLEMS = 6


class NotAVerdictError(ValueError):
    """A text is not a verdict; the message says why."""


@dataclass(frozen=True)
class Usage:
    """Tokens that a server reported; None where it did not, or not believably (then `note` says so)."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Answer:
    """A verdict, or the problem that there is none, and the tokens that were used either way."""

    verdict: Verdict | None
    problem: str | None
    usage: Usage


def read_answer(body: str | bytes) -> Answer:
    """What a chat completion says."""
    try:
        envelope = _json_object(body)
    except NotAVerdictError as error:
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        if text.lstrip().startswith("<"):
            problem = "the server answered with a web page, not with JSON; check reviewer.base_url"
        elif not text.strip():
            problem = "the server's answer is empty"
        else:
            problem = f"the server's answer is no chat completion: {error}"
        return Answer(None, problem, Usage())
    usage = read_usage(envelope.get("usage"))
    try:
        return Answer(parse_verdict(_content(envelope)), None, usage)
    except NotAVerdictError as error:
        return Answer(None, str(error), usage)


def parse_verdict(text: str | bytes) -> Verdict:
    """The verdict that a text is, exactly and from end to end.

    Raises:
        NotAVerdictError: it is anything else.
    """
    try:
        values = _json_object(text)
    except NotAVerdictError as error:
        raise NotAVerdictError(f"the reviewer's answer is not a verdict: {error}") from None
    try:
        verdict = Verdict.model_validate(values)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors(include_input=False, include_url=False)]
        more = len(problems) - _LISTED_PROBLEMS
        tail = f"; and {more} more" if more > 0 else ""
        raise NotAVerdictError(
            f"the reviewer's verdict has another form: {'; '.join(problems[:_LISTED_PROBLEMS])}{tail}"
        ) from None
    if "\\u0000" in verdict.model_dump_json():
        # PostgreSQL cannot store it, and no sentence needs it.
        raise NotAVerdictError("the reviewer's verdict holds a NUL character")
    return verdict


def read_usage(usage: object) -> Usage:
    """The tokens of a `usage` object; its output count includes reasoning, its input count cached tokens."""
    if usage is None:
        return Usage()
    if not isinstance(usage, Mapping):
        return Usage(note="the reported usage is no object")
    counts = {
        "input_tokens": usage.get("prompt_tokens"),
        "cached_input_tokens": _detail(usage, "prompt_tokens_details", "cached_tokens"),
        "output_tokens": usage.get("completion_tokens"),
        "reasoning_tokens": _detail(usage, "completion_tokens_details", "reasoning_tokens"),
    }
    absurd = {name for name, value in counts.items() if value is not None and not _is_count(value)}
    for part, whole in (("cached_input_tokens", "input_tokens"), ("reasoning_tokens", "output_tokens")):
        both = part not in absurd and whole not in absurd and counts[part] is not None
        if both and (counts[whole] is None or counts[part] > counts[whole]):
            absurd.add(part)
    note = f"the server reported impossible counts of {', '.join(sorted(absurd))}" if absurd else None
    return Usage(**{name: None if name in absurd else value for name, value in counts.items()}, note=note)


def _detail(usage: Mapping[str, Any], group: str, name: str) -> Any:
    return _mapping(usage.get(group)).get(name)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _content(envelope: Mapping[str, Any]) -> str:
    """The text of the one choice that ended by itself."""
    choices = envelope.get("choices")
    if not isinstance(choices, list) or not choices:
        error = error_message(envelope)
        raise NotAVerdictError(f"the server gave no answer{f': {error}' if error else ''}")
    if len(choices) > 1:
        raise NotAVerdictError(f"the server gave {len(choices)} answers where one was asked for")
    choice = _mapping(choices[0])
    message = _mapping(choice.get("message"))
    if refusal := message.get("refusal"):
        raise NotAVerdictError(f"the reviewer refused to answer: {excerpt(str(refusal))}")
    _check_ending(choice.get("finish_reason"))
    content = message.get("content")
    if content is None or (isinstance(content, str) and not content.strip()):
        raise NotAVerdictError("the reviewer's answer is empty")
    if not isinstance(content, str):
        raise NotAVerdictError("the reviewer's answer is no text")
    return content


def _check_ending(reason: object) -> None:
    if reason == "stop":
        return
    if reason == "length":
        raise NotAVerdictError(
            "the reviewer's answer was cut at the token limit; raise reviewer.max_output_tokens"
        )
    if reason == "content_filter":
        raise NotAVerdictError("the reviewer's answer was withheld by the server's content filter")
    raise NotAVerdictError(
        f"the reviewer's answer did not end by itself (finish_reason {excerpt(repr(reason))})"
    )


def error_message(envelope: Mapping[str, Any]) -> str:
    """The server's own words about an error, shortened; empty where it has none."""
    error = envelope.get("error")
    if isinstance(error, Mapping):
        error = error.get("message")
    return excerpt(error) if isinstance(error, str) else ""


def error_of(body: str) -> tuple[str, str]:
    """Code and message of an error body; the body's beginning where it has no known form."""
    try:
        envelope = _json_object(body)
    except NotAVerdictError:
        return "", excerpt(body)
    error = envelope.get("error")
    code = error.get("code") or error.get("type") if isinstance(error, Mapping) else ""
    return str(code or ""), error_message(envelope) or excerpt(str(envelope.get("message") or ""))


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_CHARACTERS else line[:_EXCERPT_CHARACTERS] + "…"


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise NotAVerdictError("it is no UTF-8 text") from None
    except NotAVerdictError:
        raise
    except (ValueError, RecursionError) as error:
        raise NotAVerdictError(_why_no_json(str(text), error)) from None
    if not isinstance(value, dict):
        raise NotAVerdictError(f"it is a JSON {type(value).__name__}, not one JSON object")
    return value


def _why_no_json(text: str, error: Exception) -> str:
    if not text.lstrip(" \t\r\n").startswith("{"):
        return f"it does not begin with a JSON object but with {excerpt(text)!r}"
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        return f"there is text after the JSON object: {excerpt(text[error.pos :])!r}"
    return f"it is not valid JSON ({error})"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise NotAVerdictError(f"it names {', '.join(map(excerpt, twice))} twice")
    return values


def _no_constant(name: str) -> Any:
    raise NotAVerdictError(f"it holds {name}, which is no JSON")


def _problem(error: Mapping[str, Any]) -> str:
    place = ".".join(excerpt(str(part)) for part in error["loc"]) or "as a whole"
    return f"{place}: {error['msg']}"
