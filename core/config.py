"""The run config: everything that changes an output, frozen, one sub-model per stage.

YAML in (`load_config`), overrides on top (`--set a.b=c`), unknown keys refused with the nearest known
one, all problems in one message. `config_hash` covers every value but where the output goes.
Numbers are the defaults of METHOD; a run changes them here, never in code.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import ConfigError
from core.qc.thresholds import QCThresholds

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


def _distinct(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(kinds)) != len(kinds):
        raise ValueError(f"names a kind twice: {', '.join(kinds)}")
    return kinds


InstructionKinds = Annotated[
    tuple[Literal["ab", "likelihood"], ...], Field(min_length=1), AfterValidator(_distinct)
]
PairKinds = Annotated[tuple[Literal["ab", "pmi"], ...], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunSection(Section):
    """What the run is called, where it writes, and the seed that all randomness hangs on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "pilot"
    project: Annotated[str, Field(min_length=1, max_length=64)] = "default"
    output_dir: Path = Path("runs/pilot")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42


class HealthSection(Section):
    """Band in which a working model falls on the plain health sentences (METHOD 2)."""

    min_mean_loss_nats: Annotated[float, Field(ge=0, le=20)] = 0.3
    max_mean_loss_nats: Annotated[float, Field(gt=0, le=20)] = 5.5
    max_tokens_per_word_ratio: Annotated[float, Field(gt=0, le=20)] = 2.2


class SentinelSection(Section):
    """Scored rule of the sentinel probes (METHOD 2)."""

    min_completion_pass_ratio: Ratio = 0.6
    max_turn_end_probability: Ratio = 0.05
    max_text_end_probability: Ratio = 0.20


class ModelSection(Section):
    """Which base model, and how it is loaded."""

    source: Annotated[str, Field(min_length=1)] = "bundled"
    revision: str | None = None
    bos: Literal["auto", "always", "never"] = "auto"
    quantization: Literal["none", "nf4", "int8"] = "none"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    health: HealthSection = HealthSection()
    sentinels: SentinelSection = SentinelSection()


class EngineSection(Section):
    """How the model is run. `batch_size` rows decode together; a pass holds `prefill_tokens`."""

    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    prefill_tokens: Annotated[int, Field(ge=64)] = 4096


class SamplingSection(Section):
    """Sampling of one stage. `top_k` 0 keeps the whole vocabulary."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    top_k: Annotated[int, Field(ge=0)] = 64
    repetition_penalty: Annotated[float, Field(ge=0.5, le=2.0)] = 1.1


class InstructionSection(SamplingSection):
    """Instruction generation: numbered few-shot lists that the model goes on with."""

    max_new_tokens: PositiveInt = 160
    seeds_per_prompt: Annotated[int, Field(ge=2, le=50)] = 8
    accepted_per_prompt: Annotated[int, Field(ge=0, le=20)] = 2
    prompts_per_round: PositiveInt = 4
    samples_per_prompt: PositiveInt = 8
    items_per_completion: PositiveInt = 8
    min_words: PositiveInt = 3
    max_words: PositiveInt = 60

    @model_validator(mode="after")
    def _order(self) -> InstructionSection:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        if self.accepted_per_prompt >= self.seeds_per_prompt:
            raise ValueError(
                f"accepted_per_prompt {self.accepted_per_prompt} must be below seeds_per_prompt "
                f"{self.seeds_per_prompt}: some hand-written seeds stay in every prompt"
            )
        return self


class ResponseSection(SamplingSection):
    """Response generation: few-shot pairs, then the target instruction."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.4
    max_new_tokens: PositiveInt = 80
    few_shot_pairs: Annotated[int, Field(ge=1, le=20)] = 4
    use_stop_strings: bool = True


class CriticSection(Section):
    """A critic. All its kinds are certified; the best informative one decides."""

    margin_nats: Literal["fit"] | float = 1.0
    target_precision_ratio: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    min_auroc: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.70
    min_label_mass_ratio: Ratio = 0.5
    certification_items: Annotated[int, Field(ge=20)] = 120
    labelled_file: Path | None = None


class InstructionCriticSection(CriticSection):
    """Critic of instructions alone."""

    kinds: InstructionKinds = ("ab", "likelihood")


class PairCriticSection(CriticSection):
    """Critic of instruction-response pairs."""

    kinds: PairKinds = ("ab", "pmi")


class CriticsSection(Section):
    """The two critics of METHOD 5."""

    instruction: InstructionCriticSection = InstructionCriticSection()
    pair: PairCriticSection = PairCriticSection()


class DedupSection(Section):
    """De-duplication against the pool, the seeds and a held-out file."""

    jaccard_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    shingle_words: PositiveInt = 3
    permutations: Annotated[int, Field(ge=16, le=512)] = 128
    heldout_file: Path | None = None


class TargetSection(Section):
    """How many accepted pairs, and when to give up."""

    count: PositiveInt = 100
    max_candidates: PositiveInt = 2000
    min_response_candidates: Annotated[int, Field(ge=0)] = 0
    min_new_unique_ratio: Ratio = 0.05
    give_up_rounds: PositiveInt = 3

    @model_validator(mode="after")
    def _room(self) -> TargetSection:
        if self.max_candidates < max(self.count, self.min_response_candidates):
            raise ValueError(
                f"max_candidates {self.max_candidates} is below count {self.count} or "
                f"min_response_candidates {self.min_response_candidates}; it could never be reached"
            )
        return self


class ScaleSection(Section):
    """How many accepted pairs the run is to have after its pilot; gates forecast their cost from it."""

    count: PositiveInt = 15_000


class CostSection(Section):
    """Price of the device's time (0 for one's own machine) and what the project may cost in all."""

    device_usd_per_hour: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    budget_usd: Annotated[float, Field(ge=0.0, le=10_000_000.0)] = 300.0


class PriceSection(Section):
    """Prices of a reviewer that the dated table does not list, in USD per million tokens."""

    input_usd: Annotated[float, Field(ge=0.0, le=10_000.0)]
    output_usd: Annotated[float, Field(ge=0.0, le=10_000.0)]
    cached_input_usd: Annotated[float, Field(ge=0.0, le=10_000.0)] | None = None


class ReviewerSpec(Section):
    """One model that reviews, behind any OpenAI-compatible server.

    `base_url` None is OpenAI's own. `timeout_s` is for one whole answer, `max_output_tokens` includes
    reasoning, and an answer of more than `max_answer_bytes` is cut off and counts as none.
    """

    model: Annotated[str, Field(max_length=200)] = ""
    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    effort: Literal["minimal", "low", "medium", "high"] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 180.0
    max_output_tokens: Annotated[int, Field(ge=64, le=200_000)] = 8000
    max_answer_bytes: Annotated[int, Field(ge=1024)] = 131_072
    price: PriceSection | None = None


class ReviewerSection(ReviewerSpec):
    """Who reviews at every gate; `second` gives a second opinion, and disagreement goes to a person."""

    kind: Literal["none", "openai"] = "none"
    rubric: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")] = "v1"
    second: ReviewerSpec | None = None

    @model_validator(mode="after")
    def _named(self) -> ReviewerSection:
        if self.kind == "openai" and not self.model:
            raise ValueError("reviewer.kind is openai: name the model in reviewer.model")
        if self.second is not None and not self.second.model:
            raise ValueError("name the model of the second reviewer in reviewer.second.model")
        if self.kind == "none" and self.second is not None:
            raise ValueError("a second reviewer needs a first one: set reviewer.kind to openai")
        return self


Approver = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+ -]{0,63}$")]


class GatesSection(Section):
    """How gates are decided.

    `human`: a person decides. `reviewer`: every reviewer's *go* with all machine checks passed opens the
    gate, everything else falls to a person. `passing`: machine checks alone, for demos and tests.
    `wait_hours` without a decision parks the run; it never approves. Without `approvers`, any name does.
    """

    policy: Literal["human", "reviewer", "passing"] = "human"
    approvers: tuple[Approver, ...] = ()
    require_codes: bool = False
    max_wrong_codes: Annotated[int, Field(ge=1, le=100)] = 5
    allow_override: bool = False
    wait_hours: Annotated[float, Field(gt=0, le=24 * 366)] = 72.0
    max_iterations: Annotated[int, Field(ge=1, le=50)] = 3

    @model_validator(mode="after")
    def _approvers(self) -> GatesSection:
        lowered = [name.casefold() for name in self.approvers]
        if len(set(lowered)) != len(lowered):
            raise ValueError(f"approvers names somebody twice: {', '.join(self.approvers)}")
        if self.require_codes and not self.approvers:
            raise ValueError("require_codes needs a list of approvers: a code belongs to a person")
        if self.allow_override and len(self.approvers) == 1:
            raise ValueError("allow_override needs a second approver, and only one is listed")
        return self


class RunConfig(Section):
    """A whole pilot run."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    engine: EngineSection = EngineSection()
    instructions: InstructionSection = InstructionSection()
    responses: ResponseSection = ResponseSection()
    critics: CriticsSection = CriticsSection()
    dedup: DedupSection = DedupSection()
    target: TargetSection = TargetSection()
    qc: QCThresholds = QCThresholds()
    scale: ScaleSection = ScaleSection()
    gates: GatesSection = GatesSection()
    reviewer: ReviewerSection = ReviewerSection()
    cost: CostSection = CostSection()

    def config_hash(self) -> str:
        """sha256 over every value that can change an output; not name, place and budget of the run."""
        return config_hash(self.model_dump(mode="json"))


WHERE_KEYS = ("run.name", "run.project", "run.output_dir", "cost.budget_usd")


def config_hash(values: Mapping[str, Any]) -> str:
    """sha256 of canonical JSON of a dumped config, `WHERE_KEYS` left out."""
    kept = {k: v for k, v in flatten(values).items() if k not in WHERE_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines `key: old -> new` for every value that differs and can change an output."""
    a, b = flatten(old), flatten(new)
    keys = sorted((a.keys() | b.keys()) - set(WHERE_KEYS))
    return [f"{k}: {a.get(k)!r} -> {b.get(k)!r}" for k in keys if a.get(k) != b.get(k)]


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated config of a YAML file with `a.b=c` overrides on top.

    Raises:
        ConfigError: the file cannot be read, or has problems; all of them are in the message.
    """
    values = _read_yaml(path)
    problems = [problem for item in overrides if (problem := _apply(values, item))]
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems += [explain(item) for item in error.errors()]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        plural = "problem" if len(problems) == 1 else "problems"
        raise ConfigError(f"{path} has {len(problems)} {plural}:\n{listed}", problems=problems)
    return config


def parse_yaml(text: str) -> RunConfig:
    """The config that `dump_yaml` wrote.

    Raises:
        ConfigError: it was written by another version of the config model, or edited.
    """
    try:
        return RunConfig.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"a recorded config cannot be read any more: {error}", problems=[]) from error


def dump_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}; give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} must hold sections like `run:` and `model:`, not a {type(values).__name__}"
        )
    return values


def _apply(values: dict[str, Any], override: str) -> str | None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return f"--set {override!r} is not of the form section.key=value"
    place: Any = values
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            return f"--set {key}: {part} is a value, not a section"
    try:
        place[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"--set {key}: {text!r} is not a YAML value"
    return None


def explain(error: Mapping[str, Any]) -> str:
    """One problem that pydantic found, with its key and the nearest known key."""
    location = [str(part) for part in error["loc"] if part not in ("fit", "float", "literal['fit']")]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest(location)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return (
        f"{key or 'config'}: {message} (got {error.get('input')!r})" if _small(error) else f"{key}: {message}"
    )


def _small(error: Mapping[str, Any]) -> bool:
    return isinstance(error.get("input"), str | int | float | bool | None)


def _nearest(location: Sequence[str]) -> str:
    """`; did you mean a.b?` for the known key that looks most alike, preferring the same section."""
    known = list(flatten(RunConfig().model_dump(mode="json"))) + list(RunConfig.model_fields)
    section = ".".join(location[:-1])
    near = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == section]
    if match := difflib.get_close_matches(location[-1], near, n=1, cutoff=0.6):
        return f"; did you mean {'.'.join([*location[:-1], match[0]])}?"
    anywhere = {k.rpartition(".")[2]: k for k in known}
    if match := difflib.get_close_matches(location[-1], list(anywhere), n=1, cutoff=0.6):
        return f"; did you mean {anywhere[match[0]]}?"
    return f"; known here: {', '.join(sorted(set(near)))}" if near else ""
