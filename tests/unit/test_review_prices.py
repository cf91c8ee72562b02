"""Token prices: which one holds on which day, exact arithmetic, and what a bad table is told."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.costs.prices import TokenPrice, built_in_prices, load_prices, price_of, stated_price
from core.errors import ConfigError, DataFileError

TODAY = dt.date(2026, 11, 24)


def test_a_price_is_the_one_of_its_day() -> None:
    """The day before a price changed has the old price, the day itself the new one."""
    assert price_of("o3", dt.date(2025, 6, 9)).output_usd == 40
    assert price_of("o3", dt.date(2025, 6, 10)).output_usd == 8


def test_a_dated_name_means_its_model_unless_it_is_listed_itself() -> None:
    """`gpt-5-2025-08-07` costs what `gpt-5` costs; the first gpt-4o keeps its own, higher price."""
    assert price_of("gpt-5-2025-08-07", TODAY) == price_of("gpt-5", TODAY)
    assert price_of("gpt-4o-2024-05-13", TODAY).input_usd == 5
    assert price_of("gpt-4o-2024-11-20", TODAY).input_usd == Decimal("2.5")


@pytest.mark.parametrize("model", ["gpt-5-imaginary", "my-model", "gpt-5-20250807", ""])
def test_an_unknown_model_is_refused_with_what_to_do(model: str) -> None:
    """The message names known models and the setting for prices of one's own."""
    with pytest.raises(ConfigError) as caught:
        price_of(model, TODAY)
    assert "reviewer.price" in str(caught.value) and "gpt-5-mini" in str(caught.value)


def test_a_day_before_the_first_price_is_refused() -> None:
    """The table does not guess backwards."""
    with pytest.raises(ConfigError, match=r"known from 2025-08-07 to today, not on 2025-01-01"):
        price_of("gpt-5", dt.date(2025, 1, 1))


def test_cost_counts_cached_tokens_once_and_rounds_up() -> None:
    """Cached tokens are part of the input; a fraction of a micro-dollar counts as a whole one."""
    price = stated_price(1.25, 10.0, 0.125)
    assert price.cost_usd_micros(1000, 0, 0) == 1250
    assert price.cost_usd_micros(1000, 1000, 0) == 125
    assert price.cost_usd_micros(1, 1, 0) == 1
    assert price.cost_usd_micros(0, 0, 0) == 0


def test_arithmetic_does_not_drift() -> None:
    """Amounts that a float or a 28-digit decimal would round are exact."""
    price = stated_price(0.1, 0.7, None)
    assert price.cost_usd_micros(10**30, 0, 10) == 10**29 + 7
    assert price.cost_usd_micros(3, 0, 0) == 1


@pytest.mark.parametrize("counts", [(-1, 0, 0), (1, 2, 0), (0, 0, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    """No count may be negative, and no more tokens cached than sent."""
    with pytest.raises(ValueError, match="token"):
        stated_price(1, 1, None).cost_usd_micros(*counts)


@given(*[st.integers(0, 10**7)] * 4)
def test_an_answer_never_costs_less_than_part_of_it(a: int, cached: int, out: int, more: int) -> None:
    """Cost grows with tokens, and two parts cost at least the whole and at most a micro-dollar more."""
    price = TokenPrice(Decimal("1.25"), Decimal("0.125"), Decimal("9.99"), "test")
    whole = price.cost_usd_micros(a + cached, cached, out + more)
    parts = price.cost_usd_micros(a + cached, cached, out) + price.cost_usd_micros(0, 0, more)
    assert parts - 1 <= whole <= parts


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_stated_price_must_be_a_price(value: float) -> None:
    """Negative and endless prices are refused."""
    with pytest.raises(ConfigError, match="0 USD or more"):
        stated_price(value, 1.0, None)


def test_every_built_in_price_is_backed_and_plausible() -> None:
    """Each entry has a source and a day of reading; cached input is not dearer, output not cheaper."""
    for entries in built_in_prices().values():
        for entry in entries:
            assert entry.valid_from <= entry.read <= TODAY
            assert 0 < entry.cached_input_usd <= entry.input_usd < entry.output_usd


def _entry(**values: object) -> str:
    fields = {
        "model": "m",
        "valid_from": "2025-01-01",
        "input_usd": 1,
        "cached_input_usd": 1,
        "output_usd": 2,
        "source": "https://example.org/prices",
        "read": "2025-01-02",
    } | values
    return "  - {" + ", ".join(f"{key}: {value}" for key, value in fields.items()) + "}\n"


BAD_TABLES = {
    "negative": (_entry(input_usd=-1), "entry 1, input_usd: Input should be greater than or equal to 0"),
    "no number": (_entry(output_usd="a lot"), "entry 1, output_usd"),
    "unknown key": (_entry(outptu_usd=3), "entry 1, outptu_usd: Extra inputs"),
    "no source": (_entry(source="heard it"), "entry 1, source"),
    "no date": (_entry(valid_from="soon"), "entry 1, valid_from"),
    "same day": (_entry() + _entry(input_usd=2), "m: two prices from 2025-01-01"),
    "out of order": (_entry() + _entry(valid_from="2024-01-01"), "list oldest first"),
    "gap": (
        _entry(valid_until="2025-02-01") + _entry(valid_from="2025-03-01"),
        "it must begin on 2025-02-02",
    ),
    "overlap": (
        _entry(valid_until="2025-02-01") + _entry(valid_from="2025-01-20"),
        "must begin on 2025-02-02",
    ),
    "ends before it begins": (_entry(valid_until="2024-02-01"), "is before valid_from"),
    "no entry": ("  - 3\n", "entry 1, as a whole"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """The message names the file, the entry and the fault."""
    text, says = BAD_TABLES[name]
    path = tmp_path / "prices.yaml"
    path.write_text("prices:\n" + text)
    with pytest.raises(DataFileError) as caught:
        load_prices(path)
    assert says in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "prices: 3", "- 1", "prices: []\nmore: 1", "a: [", "\x00"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    """What is no price table at all is said to be none."""
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(DataFileError, match=r"prices\.yaml"):
        load_prices(path)


def test_a_price_that_ended_is_not_used_afterwards(tmp_path: Path) -> None:
    """After `valid_until` the model has no price, rather than an old one."""
    path = tmp_path / "prices.yaml"
    path.write_text("prices:\n" + _entry(valid_until="2025-02-01"))
    table = load_prices(path)
    assert price_of("m", dt.date(2025, 2, 1), table).output_usd == 2
    with pytest.raises(ConfigError, match="to 2025-02-01, not on 2025-02-02"):
        price_of("m", dt.date(2025, 2, 2), table)
