"""Stop strings, matched on decoded text.

A stop string is never turned into token ids: the tokens of `\\nInstruction:` end in `:`, and stopping
on that token would cut every answer at its first colon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Position and value of the stop string that occurs first, or None. Ties go to the longer one."""
    hits = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
    if not hits:
        return None
    position, _, stop = min(hits)
    return position, stop


class StopMatcher:
    """Looks for stop strings at the growing end of a token sequence.

    Only the last tokens are decoded at each step: a stop string of b UTF-8 bytes spans at most b
    tokens, so a window of b + 4 tokens always holds one that the newest token completed.
    """

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        self.stops = tuple(stops)
        self.decode = decode
        self.window = max((len(stop.encode()) for stop in self.stops), default=0) + 4

    def completed(self, ids: Sequence[int]) -> bool:
        """Whether the newest tokens complete a stop string."""
        if not self.stops:
            return False
        tail = self.decode(ids[-self.window :])
        return any(stop in tail for stop in self.stops)
