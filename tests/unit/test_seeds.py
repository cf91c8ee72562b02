"""The seed items: what the built-in file promises, and how a bad file is refused."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from itertools import combinations
from pathlib import Path
from statistics import median

import pytest

from core.errors import DataFileError
from core.prompts.seeds import TYPES, Seed, load_seeds

MAX_JACCARD_RATIO = 0.5
MARKERS = ("instruction:", "response:", "task:", "label:", "(end)", "```", "###", "<|", "|>")
LIST_HEAD = re.compile(r"(?m)^\s*(\d+[.)]|[-*•])(\s|$)")
OPENERS = re.compile(r"(?i)^(sure|certainly|of course|okay|here (is|are)|as an ai)\b")
GOOD = {"id": "a", "type": "factual", "instruction": "Is ice cold?", "response": "Yes."}


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words; a shorter text is one run."""
    split = words(text)
    return frozenset(tuple(split[i : i + 3]) for i in range(max(1, len(split) - 2)))


def write(path: Path, *rows: object) -> Path:
    """A JSONL file of rows; text goes in as it stands."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_each_type_has_forty_seeds() -> None:
    """200 seeds, 40 of each type, with ids that say the type and never repeat."""
    seeds = load_seeds()
    assert Counter(s.type for s in seeds) == dict.fromkeys(TYPES, 40)
    assert len({s.id for s in seeds}) == len(seeds) == 200
    assert all(s.id.startswith(f"{s.type}-") for s in seeds)


def test_no_two_instructions_are_near_each_other() -> None:
    """Any two instructions share less than half of their three-word runs."""
    sets = [(s.id, shingles(s.instruction)) for s in load_seeds()]
    ratios = {(a, b): len(x & y) / len(x | y) for (a, x), (b, y) in combinations(sets, 2)}
    assert {pair: r for pair, r in ratios.items() if r >= MAX_JACCARD_RATIO} == {}


def test_no_two_responses_are_equal_beyond_one_word() -> None:
    """Only one-word answers may repeat, so a response is evidence for its own instruction."""
    long = [" ".join(words(s.response)) for s in load_seeds() if len(s.response.split()) > 1]
    assert [text for text, count in Counter(long).items() if count > 1] == []


def test_no_opening_dominates() -> None:
    """At most two instructions share their first three words; one asks for a capital."""
    seeds = load_seeds()
    openings = Counter(tuple(words(s.instruction)[:3]) for s in seeds)
    assert openings.most_common(1)[0][1] <= 2
    assert sum("capital city" in s.instruction or "capital of" in s.instruction for s in seeds) == 1


@pytest.mark.parametrize("seed", load_seeds(), ids=lambda s: s.id)
def test_seed_is_well_formed(seed: Seed) -> None:
    """Lengths, one-line instruction, plain ASCII, no marker, no list head, no chatty opening."""
    assert 4 <= len(seed.instruction.split()) <= 22 and "\n" not in seed.instruction
    assert 1 <= len(seed.response.split()) <= 45 and seed.response.count("\n") <= 3
    assert not OPENERS.match(seed.response)
    for text in (seed.instruction, seed.response):
        assert text.isascii() and text == text.strip() and "  " not in text
        assert not any(marker in text.lower() for marker in MARKERS)
        assert not LIST_HEAD.search(text)
        assert text.count('"') % 2 == 0


@pytest.mark.parametrize("seed", load_seeds(), ids=lambda s: s.id)
def test_seed_ends_properly(seed: Seed) -> None:
    """All texts end in punctuation, except for bare results of constrained tasks."""
    assert seed.instruction[-1] in '.?"'
    if seed.type == "instruction_following" and seed.response[-1] not in '.!?"':
        assert re.search(r"[\w}]$", seed.response) and len(seed.response.split()) <= 6
    else:
        assert seed.response[-1] in '.!?"'


def test_typical_response_is_a_full_sentence() -> None:
    """The median response has 10 to 18 words: shorter ones would teach one-word answers."""
    assert 10 <= median(len(s.response.split()) for s in load_seeds()) <= 18


def test_built_in_seeds_are_read_once_and_a_given_file_every_time(tmp_path: Path) -> None:
    """The built-in tuple is the same object on each call; an edited file is seen."""
    assert load_seeds() is load_seeds()
    path = write(tmp_path / "seeds.jsonl", GOOD)
    assert load_seeds(path) == (Seed("a", "factual", "Is ice cold?", "Yes."),)
    write(path, GOOD, {**GOOD, "id": "b"})
    assert [s.id for s in load_seeds(path)] == ["a", "b"]


def test_line_separator_inside_a_text_does_not_cut_the_row(tmp_path: Path) -> None:
    """A raw U+2028 inside a string is part of the text, not the end of a line."""
    text = "One.\u2028Two."
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps({**GOOD, "response": text}, ensure_ascii=False), encoding="utf-8")
    assert load_seeds(path)[0].response == text


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{broken", "not JSON"),
        ("", "not JSON"),
        ([1], "not an object"),
        ({**GOOD, "id": "b", "type": "poem"}, "type 'poem' is none of factual"),
        ({**GOOD, "id": "b", "type": ["factual"]}, "type missing or empty"),
        ({**GOOD, "id": "b", "response": "  "}, "response missing or empty"),
        ({"id": "b", "type": "factual"}, "instruction, response missing or empty"),
        (GOOD, "id 'a' is on line 1 already"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, row: object, problem: str) -> None:
    """The error gives the number of the bad line and what is wrong with it."""
    with pytest.raises(DataFileError) as caught:
        load_seeds(write(tmp_path / "seeds.jsonl", GOOD, row, {**GOOD, "id": "z"}))
    assert [number for number, _ in caught.value.values["lines"]] == [2]
    assert "line 2: " in str(caught.value) and problem in str(caught.value)


def test_all_bad_lines_come_in_one_error(tmp_path: Path) -> None:
    """Somebody who repairs a file sees every bad line at once."""
    path = write(tmp_path / "seeds.jsonl", "{", GOOD, {**GOOD, "type": "odd"}, GOOD)
    with pytest.raises(DataFileError, match=r"(?s)3 lines.*line 1:.*line 3:.*line 4:"):
        load_seeds(path)


def test_missing_empty_or_binary_file_is_refused(tmp_path: Path) -> None:
    """A file that holds no seeds at all is an error that names it, not an empty pool."""
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.jsonl", empty, binary):
        with pytest.raises(DataFileError, match=re.escape(str(path))):
            load_seeds(path)
