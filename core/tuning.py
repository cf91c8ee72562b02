"""The parameters that an iteration may change: what each is called, its config key, its bounds.

One table feeds the reviewer's schema, the form at a gate, `stagegate approve --set` and the iteration
table, so that a proposal, an approval and a run can only mean the same thing. Limits of QC are not in it:
changing what a gate means is a new run with a new approval, never an iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.config import RunConfig, explain
from core.errors import ConfigError

TuningValue = float | int | bool


@dataclass(frozen=True)
class Tunable:
    """A parameter: its place in the config, its type, its bounds (None for a switch), its title."""

    key: str
    kind: type
    title: str
    low: float | None = None
    high: float | None = None

    def bounds_with(self, value: TuningValue) -> tuple[float, float] | None:
        """The bounds, widened so that the value in force is always allowed; None for a switch."""
        if self.low is None or self.high is None:
            return None
        return min(self.low, value), max(self.high, value)


TUNABLES: dict[str, Tunable] = {
    "instruction_temperature": Tunable("instructions.temperature", float, "Instruction temperature", 0, 2),
    "instruction_top_p": Tunable("instructions.top_p", float, "Instruction top-p", 0.1, 1),
    "instruction_repetition_penalty": Tunable(
        "instructions.repetition_penalty", float, "Instruction repetition penalty", 1, 1.5
    ),
    "instruction_max_new_tokens": Tunable(
        "instructions.max_new_tokens", int, "Instruction max new tokens", 16, 1024
    ),
    "response_temperature": Tunable("responses.temperature", float, "Response temperature", 0, 2),
    "response_top_p": Tunable("responses.top_p", float, "Response top-p", 0.1, 1),
    "response_repetition_penalty": Tunable(
        "responses.repetition_penalty", float, "Response repetition penalty", 1, 1.5
    ),
    "response_max_new_tokens": Tunable("responses.max_new_tokens", int, "Response max new tokens", 16, 1024),
    "response_few_shot_pairs": Tunable("responses.few_shot_pairs", int, "Few-shot pairs", 1, 12),
    "response_stop_strings": Tunable("responses.use_stop_strings", bool, "Stop strings"),
}


def tuning_of(config: RunConfig) -> dict[str, TuningValue]:
    """The values in force, by parameter name."""
    values: dict[str, TuningValue] = {}
    for name, tunable in TUNABLES.items():
        section, _, field = tunable.key.partition(".")
        values[name] = getattr(getattr(config, section), field)
    return values


def changed_values(
    current: Mapping[str, TuningValue], wanted: Mapping[str, TuningValue | None]
) -> dict[str, TuningValue]:
    """What `wanted` really changes; None stands for no change."""
    return {name: value for name, value in wanted.items() if value is not None and value != current.get(name)}


def describe_changes(current: Mapping[str, TuningValue], changes: Mapping[str, TuningValue]) -> list[str]:
    """Lines `response_temperature: 0.4 -> 0.3`."""
    return [f"{name}: {shown(current.get(name))} -> {shown(value)}" for name, value in changes.items()]


def shown(value: object) -> str:
    """A parameter value as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_changes(current: Mapping[str, TuningValue], changes: Mapping[str, Any]) -> dict[str, TuningValue]:
    """The changes with their proper types.

    Raises:
        ConfigError: unknown names, wrong types, values out of bounds; all of them in the message.
    """
    problems: list[str] = []
    checked: dict[str, TuningValue] = {}
    for name, value in changes.items():
        problem = _problem(name, value, current)
        if problem:
            problems.append(problem)
        else:
            checked[name] = TUNABLES[name].kind(value)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"these changes cannot be used:\n{listed}", problems=problems)
    return checked


def _problem(name: str, value: Any, current: Mapping[str, TuningValue]) -> str | None:
    tunable = TUNABLES.get(name)
    if tunable is None:
        return f"{name}: no such parameter; an iteration may change {', '.join(TUNABLES)}"
    if tunable.kind is bool:
        return None if isinstance(value, bool) else f"{name}: must be true or false (got {value!r})"
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{name}: must be a number (got {value!r})"
    if tunable.kind is int and not whole:
        return f"{name}: must be a whole number (got {value!r})"
    low, high = tunable.bounds_with(current[name]) or (value, value)
    if not low <= value <= high:
        return f"{name}: {value:g} is outside {low:g} to {high:g}"
    return None


def next_config(config: RunConfig, changes: Mapping[str, Any], *, seed: int) -> RunConfig:
    """The config with the changes and another seed.

    Raises:
        ConfigError: a change is out of bounds, unknown, or does not fit the rest of the config.
    """
    checked = check_changes(tuning_of(config), changes)
    values = config.model_dump(mode="json")
    for name, value in checked.items():
        section, _, field = TUNABLES[name].key.partition(".")
        values[section][field] = value
    values["run"]["seed"] = seed
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [explain(item) for item in error.errors()]
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"these changes do not fit the config:\n{listed}", problems=problems) from error
