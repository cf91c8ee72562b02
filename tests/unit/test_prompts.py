"""Templates, list parsing, cleaning and the seed pool."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataFileError
from core.generation.pool import jaccard, normalise, shingles
from core.prompts.cleaning import RESPONSE_RULES, clean
from core.prompts.missing import misses_its_input
from core.prompts.parsing import parse_numbered_list
from core.prompts.registry import (
    render_instruction_list,
    render_label_prompt,
    render_response,
    response_stops,
    templates,
)
from core.prompts.seeds import TYPES, load_seeds


def test_first_generated_line_belongs_to_the_open_number() -> None:
    """The item that the prompt left open is kept and gets the prompt's number."""
    parsed = parse_numbered_list(" Name a fish.\n10. Sing a song.\n", 9, cut=False)
    assert [(i.number, i.text) for i in parsed.items] == [(9, "Name a fish."), (10, "Sing a song.")]


def test_only_the_last_item_of_a_cut_text_is_incomplete() -> None:
    """Hitting the token limit marks the last item, and nothing else, as incomplete."""
    parsed = parse_numbered_list(" One thing.\n10. Two thi", 9, cut=True)
    assert [i.complete for i in parsed.items] == [True, False]
    assert all(i.complete for i in parse_numbered_list(" One.\n10. Two.", 9, cut=False).items)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" A.\n1. B.", "number 1 after 9"),
        (" A.\n12. B.", "number 12 after 9"),
        (" A.\n\nBye", "text"),
    ],
)
def test_reading_stops_where_the_list_stops(text: str, why: str) -> None:
    """A restart, a skipped number or prose after a blank line ends the list, with the reason."""
    parsed = parse_numbered_list(text, 9, cut=False)
    assert [i.text for i in parsed.items] == ["A."]
    assert parsed.broke_off is not None and parsed.broke_off.startswith(why)


@given(st.text(), st.integers(1, 99), st.booleans())
def test_parsing_is_total(text: str, number: int, cut: bool) -> None:
    """Any text parses, numbers are consecutive, and the first is the open one."""
    items = parse_numbered_list(text, number, cut=cut).items
    assert [i.number for i in items] == list(range(number, number + len(items)))


def test_blank_lines_inside_an_answer_stay() -> None:
    """An answer of two paragraphs is content; only a new turn at a line's start is cut."""
    text = " First.\n\nSecond: see Instruction: here.\nInstruction: next"
    cleaned = clean(text, RESPONSE_RULES)
    assert cleaned.text == "First.\n\nSecond: see Instruction: here."
    assert cleaned.rules == ("cut_new_turn",)


@given(st.text())
def test_cleaning_is_idempotent_and_says_when_it_did_something(text: str) -> None:
    """Cleaning twice changes nothing more, and unchanged text names no rule."""
    once = clean(text, RESPONSE_RULES)
    if once.text == text.strip():
        assert not once.rules
    again = clean(once.text, RESPONSE_RULES)
    if not once.rules:
        assert again.text == once.text


def test_editing_a_template_changes_its_hash() -> None:
    """The hash covers every field, so a changed prompt never passes for the old one."""
    from dataclasses import replace

    template = templates()["response"]
    changed = replace(template, fields={**template.fields, "open": "Q: {instruction}\nA:"})
    assert changed.hash != template.hash
    assert len({t.hash for t in templates().values()}) == len(templates())


def test_prompts_share_their_start_and_end_open() -> None:
    """Two response prompts differ only in the target; the list prompt ends on the open number."""
    pairs = [("a", "Say hi.", "Hi."), ("b", "Say bye.", "Bye.")]
    one, two = render_response("X?", pairs).text, render_response("Y?", pairs).text
    shared = "Instruction: Say hi.\nResponse: Hi.\n\nInstruction: Say bye.\nResponse: Bye.\n\n"
    assert one.startswith(shared) and two.startswith(shared)
    assert one.endswith("Instruction: X?\nResponse:")
    prompt, number = render_instruction_list([("a", "Say hi."), ("b", "Say bye.")])
    assert number == 3 and prompt.text.endswith("2. Say bye.\n3.")
    assert all(stop in shared for stop in response_stops())


def test_label_prompt_swaps_the_labels_only() -> None:
    """The two assignments differ in nothing but the letters of the labels."""
    item = {"instruction": "Say hi.", "response": "Hi."}
    first = render_label_prompt("critic_pair", item, "A", "B")
    second = render_label_prompt("critic_pair", item, "B", "A")
    assert first != second
    swapped = first.replace("Label A", "Label ?").replace("Label B", "Label A")
    swapped = swapped.replace("Label ?", "Label B").replace("Label: A", "Label: ?")
    assert swapped.replace("Label: B", "Label: A").replace("Label: ?", "Label: B") == second
    assert "Response: Hi. (end)" in first and first.endswith("Label:")


def test_seed_pool_is_wide_enough_and_has_no_twins() -> None:
    """At least 30 seeds of each type, and no two instructions near each other."""
    seeds = load_seeds()
    assert len(seeds) >= 150
    assert all(sum(s.type == kind for s in seeds) >= 30 for kind in TYPES)
    sets = [(s.id, shingles(normalise(s.instruction), 3)) for s in seeds]
    near = [(a, b) for (a, x), (b, y) in combinations(sets, 2) if jaccard(x, y) >= 0.5]
    assert near == []


def test_seed_texts_carry_no_prompt_markers() -> None:
    """No seed holds the pipeline's own markers or starts like a list item, and each one ends."""
    for seed in load_seeds():
        for text in (seed.instruction, seed.response):
            assert "Instruction:" not in text and "Response:" not in text
            assert not text[0].isdigit() or not text.split()[0].endswith(".")
            assert text == text.strip()
        assert "\n" not in seed.instruction
        assert seed.instruction.rstrip('"')[-1] in ".?!:", seed.id


def test_broken_seed_file_names_every_line(tmp_path: Path) -> None:
    """A bad file is refused with all its bad lines, not only the first."""
    good = {"id": "a", "type": "factual", "instruction": "X?", "response": "Y."}
    lines = [
        json.dumps(good),
        "{",
        json.dumps({**good, "type": "odd", "id": "b"}),
        json.dumps(good),
    ]
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataFileError, match=r"(?s)line 2.*line 3.*line 4"):
        load_seeds(path)


@pytest.mark.parametrize(
    "instruction",
    [
        "Write the name of each item on the left side of the picture.",
        "Put these words in alphabetical order.",
        "Write a sentence about each animal below.",
        "Read the following story and say who the hero is.",
        "What animal does this image represent?",
        "Summarize this article in two sentences.",
    ],
)
def test_an_instruction_without_its_input_is_caught(instruction: str) -> None:
    """Pointing at a picture, a text or words that are not there makes an instruction unusable."""
    assert misses_its_input(instruction)


def test_instructions_that_hold_their_input_pass() -> None:
    """Inputs after a colon or in quotes, and plain uses of the same words, are no fault; no seed is."""
    fine = [
        "Sort these numbers from small to large: 9, 2, 7.",
        'Rewrite this sentence in the past tense: "She walks home."',
        "Use the following words in one sentence: moon, river.",
        "What do people eat these days?",
        "What flies high above the clouds?",
        "Explain how a map is drawn.",
        "What lies below the surface of the sea?",
    ]
    assert [text for text in fine if misses_its_input(text)] == []
    assert [s.id for s in load_seeds() if misses_its_input(s.instruction)] == []
