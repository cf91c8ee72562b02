"""Sampling, stop strings, shared prefixes and the row cache, without a model."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.engines.base import CompletionRequest, Sampling
from core.engines.kv import RowCache
from core.engines.prefix import MIN_SHARED_TOKENS, shared_prefix
from core.engines.sampling import RowSampling, choose_next, draw_uniforms, penalise_repetition
from core.engines.stops import StopMatcher, first_stop

CPU = torch.device("cpu")


def test_sampling_follows_the_probabilities() -> None:
    """Drawn tokens occur as often as their softmax says, within five standard errors."""
    n = 20_000
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]]).expand(n, -1)
    uniforms = torch.from_numpy(np.random.default_rng(0).random(n))
    rows = RowSampling([Sampling(1.0, 1.0, 0)] * n, CPU)
    drawn = torch.bincount(choose_next(logits, uniforms, rows), minlength=4) / n
    expected = logits[0].softmax(-1)
    assert torch.all((drawn - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt())


def test_top_k_and_top_p_cut_what_they_should() -> None:
    """Top-k keeps k tokens, top-p the smallest set that reaches p, and the best token always stays."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(400, -1)
    uniforms = torch.linspace(0, 0.999999, 400, dtype=torch.float64)

    def seen(sampling: Sampling) -> set[int]:
        return set(choose_next(logits, uniforms, RowSampling([sampling] * 400, CPU)).tolist())

    assert seen(Sampling(1.0, 1.0, 2)) == {0, 1}
    assert seen(Sampling(1.0, 0.79, 0)) == {0, 1}
    assert seen(Sampling(1.0, 0.81, 0)) == {0, 1, 2}
    assert seen(Sampling(1.0, 0.01, 64)) == {0}


def test_rows_with_different_settings_do_not_disturb_each_other() -> None:
    """A greedy row, a top-k row and a full row choose as they would alone."""
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    uniforms = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    settings = [Sampling(0.0), Sampling(0.8, 0.9, 5), Sampling(1.3, 0.95, 20)]
    together = choose_next(logits, uniforms, RowSampling(settings, CPU)).tolist()
    alone = [
        choose_next(logits[i : i + 1], uniforms[i : i + 1], RowSampling([s], CPU)).item()
        for i, s in enumerate(settings)
    ]
    assert together == alone
    assert together[0] == logits[0].argmax().item()


def test_repetition_penalty_counts_a_token_once() -> None:
    """A token seen three times is penalised like one seen once; unseen logits stay as they are."""
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    history = torch.tensor([[0, 0, 1, 0]])
    out = penalise_repetition(logits, history, torch.tensor([2.0]))
    assert out.tolist() == [[1.0, -4.0, 1.0]]


def test_seed_alone_decides_the_random_numbers() -> None:
    """Equal seeds give equal uniforms and different seeds do not."""

    def request(seed: int, name: str) -> CompletionRequest:
        return CompletionRequest(name, (1,), 16, seed=seed)

    assert torch.equal(draw_uniforms(request(5, "a")), draw_uniforms(request(5, "b")))
    assert not torch.equal(draw_uniforms(request(5, "a")), draw_uniforms(request(6, "a")))


def test_stop_strings_match_text_not_token_ends() -> None:
    """A colon inside an answer does not stop it; the whole delimiter does, however it is split."""
    pieces = {0: "Ratio: 3", 1: "\nInst", 2: "ruction", 3: ":", 4: " next"}
    matcher = StopMatcher(["\nInstruction:"], lambda ids: "".join(pieces[i] for i in ids))
    assert not matcher.completed([0])
    assert not matcher.completed([0, 3])
    assert not matcher.completed([0, 1, 2])
    assert matcher.completed([0, 1, 2, 3])


def test_the_earliest_stop_wins() -> None:
    """With several stop strings the text is cut at the first occurrence of any."""
    assert first_stop("abc##d\n\nx", ["\n\n", "##"]) == (3, "##")
    assert first_stop("abc", ["\n\n"]) is None


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=2, max_size=6))
def test_shared_prefix_is_shared_and_leaves_each_prompt_a_token(prompts: list[list[int]]) -> None:
    """Every prompt starts with the prefix, keeps at least one own token, and no longer one exists."""
    prefix = list(shared_prefix(prompts))
    assert all(p[: len(prefix)] == prefix and len(p) > len(prefix) for p in prompts)
    limit = min(map(len, prompts)) - 1
    common = next((i for i in range(limit) if len({p[i] for p in prompts}) > 1), limit)
    assert len(prefix) == (common if common >= MIN_SHARED_TOKENS else 0)


def test_cache_rows_join_leave_and_shift_without_mixing() -> None:
    """After joins, a leave and a shift each live row still holds its own keys, right-aligned."""
    source = RowCache(1, rows=3, columns=4)
    source.set_extent(3, 0)
    keys = torch.arange(3 * 4, dtype=torch.float32).reshape(3, 1, 4, 1)
    source.update(keys, -keys, 0)
    cache = RowCache(1, rows=3, columns=8)
    cache.set_extent(0, 6)
    for row, length in enumerate([4, 2, 3]):
        assert cache.join(source, row, length) == row
    cache.leave(0)
    layer = cache.layers[0]
    assert cache.n == 2
    assert layer.keys[0, 0, 3:6, 0].tolist() == [8.0, 9.0, 10.0]
    assert layer.keys[1, 0, 4:6, 0].tolist() == [4.0, 5.0]
    cache.shift_left(3)
    mask, positions = cache.step_inputs(CPU)
    assert layer.keys[0, 0, 0:3, 0].tolist() == [8.0, 9.0, 10.0]
    assert layer.values[1, 0, 1:3, 0].tolist() == [-4.0, -5.0]
    assert mask.tolist() == [[True, True, True, True], [False, True, True, True]]
    assert positions.tolist() == [[3], [2]]
