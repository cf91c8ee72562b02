"""Limits that a dataset is judged against. A sub-model of the run config, so part of its hash."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
AtLeastZeroRatio = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class QCThresholds(BaseModel):
    """Limits of METHOD section 6. `max_*_ratio` must be undercut, `min_*_ratio` must be reached.

    Whoever changes one changes what a gate means: the report lists every limit that differs from
    its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runaway_ratio: Ratio = 0.05
    max_token_limit_ratio: Ratio = 0.10
    max_truncation_ratio: Ratio = 0.02
    max_delimiter_leaks_kept: Count = 0
    warn_median_response_tokens: Annotated[float, Field(gt=0)] = 40.0
    min_instruction_acceptance_ratio: AtLeastZeroRatio = 0.50
    warn_instruction_acceptance_ratio: AtLeastZeroRatio = 0.30
    min_pair_acceptance_ratio: AtLeastZeroRatio = 0.50
    warn_pair_acceptance_ratio: AtLeastZeroRatio = 0.30
    warn_critic_flip_ratio: Ratio = 0.15
    max_exact_duplicates_kept: Count = 0
    max_near_duplicate_kept_ratio: Ratio = 0.02
    near_duplicate_jaccard_ratio: Ratio = 0.7
    max_unsafe_kept: Count = 0
    max_empty_or_echo_kept: Count = 0
    repeat_4gram_ratio: Ratio = 0.5
    unsafe_probability: Ratio = 0.95
    min_candidates: Annotated[int, Field(ge=1)] = 59
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    max_samples: Annotated[int, Field(ge=0, le=100)] = 10
    sample_seed: int = 0

    @model_validator(mode="after")
    def _warn_below_pass(self) -> QCThresholds:
        for name in ("instruction", "pair"):
            warn = getattr(self, f"warn_{name}_acceptance_ratio")
            least = getattr(self, f"min_{name}_acceptance_ratio")
            if warn > least:
                raise ValueError(
                    f"warn_{name}_acceptance_ratio {warn} is above "
                    f"min_{name}_acceptance_ratio {least}; it must be at most that"
                )
        return self

    def changed(self) -> dict[str, tuple[object, object]]:
        """Limits that differ from their defaults, as name: (default, now)."""
        defaults = type(self)()
        return {
            name: (getattr(defaults, name), getattr(self, name))
            for name in type(self).model_fields
            if getattr(defaults, name) != getattr(self, name)
        }
