"""Whether prompts start with the begin-of-text token, declared or measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from core.errors import ConfigError, ContaminationError
from core.models.losses import SENTENCES, token_losses
from core.models.markers import is_turn_token
from core.models.raw import RawTokenizer

TIE_NATS = 0.02


@dataclass(frozen=True)
class BosChoice:
    """`policy` is `always` or `never`; `bos_id` is None for `never`. Losses in nats per token."""

    policy: str
    bos_id: int | None
    evidence: dict[str, Any] = field(default_factory=dict)


def choose_bos(asked: str, model: Any, tokenizer: Any, device: str) -> BosChoice:
    """The BOS policy: as declared, or for `auto` the one under which the model reads plain text better.

    Both ways are scored on the same tokens, all but each sentence's first, which has no prediction
    without BOS. Within 0.02 nats of each other, the tokenizer's own default decides.

    Raises:
        ConfigError: `always` for a tokenizer without a begin-of-text token.
        ContaminationError: `always` where that token starts a chat turn.
    """
    bos_id = tokenizer.bos_token_id
    if asked == "never":
        return BosChoice("never", None, {"reason": "declared"})
    if bos_id is None:
        if asked == "always":
            raise ConfigError("bos is `always` but the tokenizer has no begin-of-text token; use auto")
        return BosChoice("never", None, {"reason": "the tokenizer has no begin-of-text token"})
    if is_turn_token(tokenizer.bos_token):
        return _turn_token(asked, tokenizer.bos_token)
    if asked == "always":
        return BosChoice("always", bos_id, {"reason": "declared"})
    return _measured(model, tokenizer, bos_id, device)


def _turn_token(asked: str, token: str) -> BosChoice:
    if asked == "always":
        raise ContaminationError(
            f"bos is `always` but this tokenizer's begin-of-text token {token!r} starts a chat turn; "
            "use a base model and its own tokenizer",
            token=token,
        )
    return BosChoice("never", None, {"reason": f"the declared token {token!r} starts a chat turn"})


def _measured(model: Any, tokenizer: Any, bos_id: int, device: str) -> BosChoice:
    raw = RawTokenizer(tokenizer)
    with_bos: list[float] = []
    without: list[float] = []
    for sentence in SENTENCES:
        ids = raw.encode(sentence)
        with_bos += token_losses(model, [bos_id, *ids], device)[1:]
        without += token_losses(model, ids, device)
    a, b = fmean(with_bos), fmean(without)
    default = list(tokenizer("a")["input_ids"])[:1] == [bos_id]
    always = default if abs(a - b) < TIE_NATS else a < b
    reason = "tie, so the tokenizer's default" if abs(a - b) < TIE_NATS else "lower loss"
    evidence = {
        "reason": reason,
        "loss_with_bos_nats": round(a, 4),
        "loss_without_bos_nats": round(b, 4),
        "tokens": len(without),
    }
    return BosChoice("always", bos_id, evidence) if always else BosChoice("never", None, evidence)
