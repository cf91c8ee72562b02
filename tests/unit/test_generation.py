"""The pool, the journal and the round loop, with a scripted engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.critics.base import AcceptRule
from core.critics.build import CertifiedCritic, build_critic
from core.engines.base import Sampling
from core.errors import ContaminationError, IntegrityError, StorageError
from core.generation.journal import Journal
from core.generation.loop import Generation, forecast, funnel
from core.generation.plan import GenerationPlan, derive_seed
from core.generation.pool import DedupPool
from tests.fakes import CharEncoder, FakeEngine

VERBS = ("Name", "Draw", "List", "Sort", "Find", "Count", "Pick", "Sing")
THINGS = ("apples", "rivers", "songs", "stones", "books", "birds", "roads", "lamps", "clouds")
SHOTS = (("shot-1", "Say hi.", "Hi."),)


def plan(**changes: Any) -> GenerationPlan:
    values: dict[str, Any] = {
        "seed": 3,
        "instruction_sampling": Sampling(0.7),
        "instruction_max_new_tokens": 60,
        "seeds_per_prompt": 3,
        "accepted_per_prompt": 1,
        "prompts_per_round": 2,
        "samples_per_prompt": 2,
        "items_per_completion": 4,
        "min_words": 3,
        "max_words": 20,
        "response_sampling": Sampling(0.4),
        "response_max_new_tokens": 40,
        "shots": SHOTS,
        "stops": ("\nInstruction:",),
        "seed_items": tuple((f"s{i}", "factual", f"Tell me fact number {i} now.") for i in range(6)),
        "target_count": 12,
        "max_candidates": 400,
        "min_response_candidates": 0,
        "min_new_unique_ratio": 0.05,
        "give_up_rounds": 3,
    }
    return GenerationPlan(**{**values, **changes})


def write(prompt: str, seed: int) -> tuple[str, str]:
    """A list of three instructions made from the seed, or an answer that names its instruction."""
    if prompt.endswith("Response:"):
        asked = prompt.rsplit("Instruction: ", 1)[1].split("\n")[0]
        return f" My answer about {asked.lower()}", "stop:\nInstruction:"
    number = int(prompt.rsplit("\n", 1)[1].rstrip("."))
    picks = [derive_seed(seed, k) for k in range(3)]
    items = [
        f"{VERBS[p % 8]} {p % 7 + 2} {THINGS[p // 8 % 9]} and {THINGS[p // 72 % 9]} here." for p in picks
    ]
    return " " + f"\n{number + 1}. ".join([items[0], items[1]]) + f"\n{number + 2}. {items[2]}", "eos"


def generation(path: Path, engine: FakeEngine | None = None, **changes: Any) -> Generation:
    engine = engine or FakeEngine(write)
    rule = AcceptRule(margin_nats=-0.75, min_label_mass_ratio=0.0, decides=True)
    critics = {
        subject: CertifiedCritic(build_critic("likelihood", engine, subject, SHOTS), rule)
        for subject in ("instruction", "pair")
    }
    reserved = [("seed-1", "Name 3 apples and rivers here.", "seed")]
    pool = DedupPool(0.7, 3, 64, reserved)
    return Generation(
        engine,
        plan(**changes),
        Journal(path),
        pool,
        critics,
        lambda items: [None] * len(items),
        "p",
    )


def essence(path: Path) -> list[dict[str, Any]]:
    """Records without the times, which alone may differ between two runs."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("created_at", "seconds", "chain")} for r in rows]


def test_every_candidate_has_a_fate_and_the_funnel_adds_up(tmp_path: Path) -> None:
    """Accepted plus rejected-by-reason equals all candidates, for instructions and for pairs."""
    run = generation(tmp_path / "j.jsonl")
    assert run.run() == "reached"
    counts = funnel(run.journal)
    lost = sum(counts["instruction_rejections"].values())
    assert counts["instructions_accepted"] + lost == counts["instruction_candidates"]
    lost = sum(counts["response_rejections"].values())
    assert counts["pairs_accepted"] + lost == counts["response_candidates"]
    assert counts["pairs_accepted"] >= 12
    assert counts["instruction_rejections"].get("duplicate_exact", 0) > 0
    assert counts["instruction_rejections"].get("critic_margin", 0) > 0


def test_a_run_cut_at_any_byte_goes_on_to_the_same_records(tmp_path: Path) -> None:
    """Whatever a kill leaves of the journal, resuming ends in the same records."""
    whole = tmp_path / "whole.jsonl"
    generation(whole).run()
    content = whole.read_bytes()
    for cut in range(0, len(content), max(1, len(content) // 23)):
        path = tmp_path / f"cut-{cut}.jsonl"
        path.write_bytes(content[:cut])
        generation(path).run()
        assert essence(path) == essence(whole), f"cut at byte {cut}"


def test_a_failing_unit_leaves_nothing_and_can_be_done_again(tmp_path: Path) -> None:
    """An error in the middle of a unit commits nothing; a fresh start gives the undisturbed result."""
    whole = tmp_path / "whole.jsonl"
    generation(whole).run()
    calls = {"n": 0}

    def flaky(prompt: str, seed: int) -> tuple[str, str]:
        calls["n"] += 1
        if calls["n"] == 12:
            raise RuntimeError("the device went away")
        return write(prompt, seed)

    path = tmp_path / "flaky.jsonl"
    with pytest.raises(RuntimeError, match="went away"):
        generation(path, FakeEngine(flaky)).run()
    generation(path).run()
    assert essence(path) == essence(whole)


def test_it_gives_up_when_nothing_new_comes(tmp_path: Path) -> None:
    """A model that repeats itself ends the run as `nothing_new`, long before the cap."""

    def parrot(prompt: str, seed: int) -> tuple[str, str]:
        return (" Name 4 songs and lamps here.", "eos") if "Response:" not in prompt else (" Yes.", "eos")

    run = generation(tmp_path / "j.jsonl", FakeEngine(parrot))
    assert run.run() == "nothing_new"
    assert run.state.instruction_candidates < 40


def test_it_stops_at_the_candidate_cap(tmp_path: Path) -> None:
    """Too few acceptances end the run at the cap and say so."""
    run = generation(tmp_path / "j.jsonl", target_count=10_000, max_candidates=60)
    assert run.run() == "candidate_cap"
    assert 60 <= run.state.instruction_candidates < 80


def test_forecast_extrapolates_the_yield_so_far(tmp_path: Path) -> None:
    """After the first round the forecast asks for missing / yield more candidates."""
    run = generation(tmp_path / "j.jsonl", target_count=40)
    assert forecast(run.state, run.plan) is None
    run.advance()
    run.advance()
    ahead = forecast(run.state, run.plan)
    assert ahead is not None and ahead.reachable
    ratio = len(run.state.accepted) / run.state.instruction_candidates
    assert ahead.candidates_to_go == int((40 - len(run.state.accepted)) / ratio)


def test_reserved_texts_never_come_back(tmp_path: Path) -> None:
    """A held-out instruction that the model writes is thrown out with its neighbour named."""
    pool = DedupPool(0.7, 3, 64, [("h1", "Name the tallest mountain on Earth.", "heldout")])
    twin = pool.add("c1", "name the tallest mountain on earth")
    assert twin is not None
    assert (twin.reason, twin.neighbour_id, twin.similarity) == ("duplicate_heldout", "h1", 1.0)
    near = pool.find("Name the tallest mountain on Earth today.")
    assert near is not None and 0.7 <= near.similarity < 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a b c d", "A, b c d!", "x y z w", "x y z w v", "q"]), max_size=12))
def test_deduplicating_twice_changes_nothing(texts: list[str]) -> None:
    """What a pool keeps, a second pool keeps whole; exact twins never stay, in any order."""

    def kept(items: list[str]) -> list[str]:
        pool = DedupPool(0.7, 3, 64)
        return [t for i, t in enumerate(items) if pool.add(str(i), t) is None]

    once = kept(texts)
    assert kept(once) == once
    assert len({" ".join(t.lower().replace(",", "").replace("!", "").split()) for t in once}) == len(once)


def test_edited_committed_line_is_found(tmp_path: Path) -> None:
    """Changing one character of a committed record makes the journal refuse to open."""
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append("a-0", [{"kind": "x", "text": "hello"}], {"seconds": 1.0})
    journal.append("a-1", [{"kind": "x", "text": "world"}], {"seconds": 1.0})
    path.write_text(path.read_text().replace("hello", "hallo"))
    with pytest.raises(IntegrityError, match="line 2"):
        Journal(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_told_in_words_and_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """A write that fails leaves the committed batches as they were and says what to do."""
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.append("a-0", [{"kind": "x"}], {"seconds": 1.0})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        journal.append("a-1", [{"kind": "x"}] * 50, {"seconds": 1.0})
    assert path.read_bytes() == before


def test_control_tokens_that_a_model_writes_cost_one_candidate_not_the_run(tmp_path: Path) -> None:
    """Text that the guard refuses is rejected as `control_tokens`; the run goes on to its target."""

    class GuardedChars(CharEncoder):
        def encode(self, text: str) -> tuple[int, ...]:
            if "[INST]" in text:
                raise ContaminationError("chat token in a prompt")
            return super().encode(text)

        def encode_continuation(self, text: str) -> tuple[int, ...]:
            self.encode(text)
            return super().encode_continuation(text)

    def chatty(prompt: str, seed: int) -> tuple[str, str]:
        text, reason = write(prompt, seed)
        return (f"{text} [INST]" if seed % 4 == 0 else text), reason

    engine = FakeEngine(chatty)
    engine.encoder = GuardedChars()
    run = generation(tmp_path / "j.jsonl", engine)
    assert run.run() == "reached"
    counts = funnel(run.journal)
    assert counts["instruction_rejections"]["control_tokens"] > 0
    assert counts["response_rejections"]["control_tokens"] > 0
