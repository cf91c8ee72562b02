"""What a token of an API model costs: a dated table, and exact arithmetic in micro-USD.

Prices are USD per million tokens, which is the same number as micro-USD per token. Covers the standard
tier; not batch discounts, long-context surcharges or taxes.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError, DataFileError

_BUILT_IN = Path(__file__).parent / "prices.yaml"
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True)
class TokenPrice:
    """Price of a model's tokens, in USD per million.

    Attributes:
        source: where the numbers come from, with the day from which they hold.
    """

    input_usd: Decimal
    cached_input_usd: Decimal
    output_usd: Decimal
    source: str

    def cost_usd_micros(self, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
        """Micro-USD of one answer, rounded up.

        Args:
            input_tokens: all tokens of the request, the cached ones included.
            cached_input_tokens: those of them that the server had cached.
            output_tokens: all tokens that are billed as output; reasoning tokens are among them.

        Raises:
            ValueError: a negative count, or more cached tokens than tokens.
        """
        if min(input_tokens, cached_input_tokens, output_tokens) < 0:
            raise ValueError("token counts cannot be negative")
        if cached_input_tokens > input_tokens:
            raise ValueError(f"{cached_input_tokens} cached tokens of only {input_tokens} input tokens")
        # Fractions, since a Decimal product rounds at 28 digits and a float before that.
        exact = (
            Fraction(self.input_usd) * (input_tokens - cached_input_tokens)
            + Fraction(self.cached_input_usd) * cached_input_tokens
            + Fraction(self.output_usd) * output_tokens
        )
        return math.ceil(exact)


def stated_price(
    input_usd: float, output_usd: float, cached_input_usd: float | None, source: str = "stated in the config"
) -> TokenPrice:
    """A price that somebody states, in USD per million tokens; without a cached price there is no discount.

    Raises:
        ConfigError: a price is negative or not a number.
    """
    cached = input_usd if cached_input_usd is None else cached_input_usd
    for value in (input_usd, cached, output_usd):
        if not math.isfinite(value) or value < 0:
            raise ConfigError(f"a token price must be 0 USD or more per million tokens (got {value})")
    # By way of text: 0.1 means a tenth, not the binary fraction next to it.
    return TokenPrice(Decimal(str(input_usd)), Decimal(str(cached)), Decimal(str(output_usd)), source)


Usd = Annotated[Decimal, Field(ge=0, le=10_000, allow_inf_nan=False)]


class PriceEntry(BaseModel):
    """One line of the table: what a model costs from a day on, and who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=200)]
    valid_from: dt.date
    valid_until: dt.date | None = None
    input_usd: Usd
    cached_input_usd: Usd
    output_usd: Usd
    source: Annotated[str, Field(pattern=r"^https://\S+$")]
    read: dt.date

    def price(self) -> TokenPrice:
        """The price alone."""
        source = f"{self.source}, from {self.valid_from}, read {self.read}"
        return TokenPrice(self.input_usd, self.cached_input_usd, self.output_usd, source)


PriceTable = Mapping[str, Sequence[PriceEntry]]


def price_of(model: str, on: dt.date, table: PriceTable | None = None) -> TokenPrice:
    """The price of a model's tokens on a day; a dated name such as `gpt-5-2025-08-07` means `gpt-5`.

    Args:
        table: the built-in one where none is given.

    Raises:
        ConfigError: the table does not know the model, or not on that day.
    """
    table = built_in_prices() if table is None else table
    entries = table.get(model) or table.get(_SNAPSHOT.sub("", model))
    if not entries:
        raise ConfigError(
            f"no price is known for model {model!r}, so its reviews could not be charged; set reviewer.price "
            f"to its USD per million tokens, or use one of {', '.join(sorted(table))}",
            model=model,
        )
    valid = [entry for entry in entries if entry.valid_from <= on <= (entry.valid_until or dt.date.max)]
    if not valid:
        last = entries[-1].valid_until or "today"
        raise ConfigError(
            f"the price of model {model!r} is known from {entries[0].valid_from} to {last}, not on {on}; "
            "set reviewer.price to its USD per million tokens",
            model=model,
        )
    return valid[-1].price()


@cache
def built_in_prices() -> PriceTable:
    """The table that comes with stagegate, read once."""
    return load_prices(_BUILT_IN)


def load_prices(path: Path) -> PriceTable:
    """The entries of a price file by model, oldest first.

    Raises:
        DataFileError: unreadable, or with problems; all of them are in the message.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataFileError(f"cannot read price table {path}: {error}", lines=[]) from error
    items = content.get("prices") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(items, list):
        raise DataFileError(f"price table {path} must hold one list, called `prices`", lines=[])
    table, problems = _entries(items)
    for model, entries in table.items():
        problems += _date_problems(model, entries)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise DataFileError(f"price table {path} cannot be used:\n{listed}", lines=[], problems=problems)
    return table


def _entries(items: Sequence[Any]) -> tuple[dict[str, list[PriceEntry]], list[str]]:
    table: dict[str, list[PriceEntry]] = {}
    problems: list[str] = []
    for number, item in enumerate(items, start=1):
        try:
            entry = PriceEntry.model_validate(item)
        except ValidationError as error:
            problems += [f"entry {number}, {_place(e['loc'])}: {e['msg']}" for e in error.errors()]
        else:
            table.setdefault(entry.model, []).append(entry)
    return table, problems


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "as a whole"


def _date_problems(model: str, entries: Sequence[PriceEntry]) -> list[str]:
    """What is wrong with a model's dates: no order, a day twice, a gap, an overlap."""
    problems = [
        f"{model}: valid_until {entry.valid_until} is before valid_from {entry.valid_from}"
        for entry in entries
        if entry.valid_until is not None and entry.valid_until < entry.valid_from
    ]
    for before, after in itertools.pairwise(entries):
        if after.valid_from == before.valid_from:
            problems.append(f"{model}: two prices from {after.valid_from}")
        elif after.valid_from < before.valid_from:
            problems.append(f"{model}: {after.valid_from} comes after {before.valid_from}; list oldest first")
        elif before.valid_until is not None:
            follows = before.valid_until + dt.timedelta(days=1)
            if after.valid_from != follows:
                problems.append(
                    f"{model}: one price ends on {before.valid_until} and the next begins on "
                    f"{after.valid_from}; it must begin on {follows}"
                )
    return problems
