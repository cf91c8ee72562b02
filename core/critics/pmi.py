"""The conditional-likelihood critic: how much more likely a text is with its instruction than without.

    pair         mean per-token  log p(response | instruction) - log p(response | no instruction)
    instruction  mean per-token  log p(instruction | task list) - log p(instruction | nothing)

Pointwise mutual information per token, in nats. The end of the text is scored with it, so that a text
which stops too early pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.critics.base import SEAL, Critic, CriticItem, Critique
from core.engines.base import CompletionEngine, Continuation
from core.prompts.registry import RenderedPrompt, render_instruction_list, render_response

END = "\n"


class LikelihoodCritic(Critic):
    """`pmi` critic over the generation prompts themselves.

    Args:
        engine: scores the continuations.
        subject: `instruction` or `pair`.
        shots: few-shot (id, instruction, response) that the context is made of.
    """

    kind = "pmi"

    def __init__(
        self, engine: CompletionEngine, subject: str, shots: Sequence[tuple[str, str, str]]
    ) -> None:
        self.engine = engine
        self.subject = subject
        self.shots = tuple(shots)
        self.rubric_hash = self._with(CriticItem("x", "y")).template_hash

    def judge(self, items: Sequence[CriticItem]) -> list[Critique]:
        """One critique per item: score in nats per token, with both terms."""
        encoder = self.engine.encoder
        texts = [" " + (i.instruction if self.subject == "instruction" else i.response or "") for i in items]
        ids = [encoder.encode_continuation(text + END) for text in texts]

        def means(contexts: Sequence[str]) -> list[float]:
            scored = self.engine.score_continuations(
                [Continuation(encoder.encode(c), t) for c, t in zip(contexts, ids, strict=True)]
            )
            return [float(values.mean()) for values in scored]

        given = means([self._with(item).text for item in items])
        alone = means([self._without()] * len(items))
        return [self._critique(g, a) for g, a in zip(given, alone, strict=True)]

    def _critique(self, given: float, alone: float) -> Critique:
        return Critique(
            kind=self.kind,
            rubric_hash=self.rubric_hash,
            score=given - alone,
            parts={"logprob_given": given, "logprob_alone": alone},
            seal=SEAL,
        )

    def _with(self, item: CriticItem) -> RenderedPrompt:
        if self.subject == "instruction":
            return render_instruction_list([(shot_id, text) for shot_id, text, _ in self.shots])[0]
        return render_response(item.instruction, self.shots)

    def _without(self) -> str:
        """The context with nothing to answer: the same few-shot pairs, an empty instruction."""
        return "\n" if self.subject == "instruction" else render_response("", self.shots).text
