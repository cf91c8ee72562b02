"""Critics that score the text itself: how likely it is where it stands, and that it ends there.

    pmi (pairs)                mean per token  log p(response | instruction) - log p(response | none)
    likelihood (instructions)  mean per token  log p(instruction | list of tasks)
    both                       + END_WEIGHT x log p(the item ends here)

Pointwise mutual information sees whether a response belongs to its instruction and nothing else: on
the bundled model it tells swapped responses apart perfectly and is blind to cut-off and shuffled ones.
The end term sees those (docs/decisions/0004-end-term.md has the table). Scores are in nats.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.critics.base import SEAL, Critic, CriticItem, Critique
from core.engines.base import CompletionEngine, Continuation, FloatArray
from core.prompts.registry import render_instruction_list, render_response

END_WEIGHT = 0.5
KIND_OF = {"instruction": "likelihood", "pair": "pmi"}
_END = {"instruction": "\n", "pair": "\n\n"}

Shot = tuple[str, str, str]


class LikelihoodCritic(Critic):
    """`pmi` critic of pairs, or `likelihood` critic of instructions, over the generation prompts.

    Args:
        engine: scores the continuations.
        subject: `instruction` or `pair`.
        shots: few-shot (id, instruction, response) that the context is made of.
    """

    def __init__(self, engine: CompletionEngine, subject: str, shots: Sequence[Shot]) -> None:
        self.engine = engine
        self.subject = subject
        self.kind = KIND_OF[subject]
        self.shots = tuple(shots)
        prompt = render_response("", self.shots)
        listed, _ = render_instruction_list([(shot_id, text) for shot_id, text, _ in self.shots])
        self._list = listed.text
        self._nothing_asked = prompt.text
        self.rubric_hash = (listed if subject == "instruction" else prompt).template_hash
        self._end = engine.encoder.encode_continuation(_END[subject])[:1]

    def judge(self, items: Sequence[CriticItem]) -> list[Critique]:
        """One critique per item, with its terms."""
        if self.subject == "instruction":
            given = self._score([self._list] * len(items), [item.instruction for item in items])
            return [self._critique(_body(g), None, float(g[-1])) for g in given]
        texts = [item.response or "" for item in items]
        given = self._score([render_response(item.instruction, self.shots).text for item in items], texts)
        alone = self._score([self._nothing_asked] * len(items), texts)
        return [self._critique(_body(g), _body(a), float(g[-1])) for g, a in zip(given, alone, strict=True)]

    def _score(self, contexts: Sequence[str], texts: Sequence[str]) -> list[FloatArray]:
        """Log-probabilities of each text's tokens and of the end behind it."""
        encoder = self.engine.encoder
        ids = [(*encoder.encode_continuation(f" {text}"), *self._end) for text in texts]
        encoded = {context: encoder.encode(context) for context in set(contexts)}
        return self.engine.score_continuations(
            [Continuation(encoded[c], text) for c, text in zip(contexts, ids, strict=True)]
        )

    def _critique(self, given: float, alone: float | None, end: float) -> Critique:
        parts = {"logprob_given": given, "logprob_end": end}
        if alone is not None:
            parts["logprob_alone"] = alone
        return Critique(
            kind=self.kind,
            rubric_hash=self.rubric_hash,
            score=given - (alone or 0.0) + END_WEIGHT * end,
            parts=parts,
            seal=SEAL,
        )


def _body(scores: FloatArray) -> float:
    """Mean log-probability of the text's own tokens, without the end behind them."""
    return float(scores[:-1].mean())
