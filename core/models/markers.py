"""Text that chat formats are written with, as text: what a base model's prompt must never hold.

Written down by hand from the published formats of the named families. Ordinary words (`user`,
`Instruction:`, `### Response:`) are not in here: a prompt may talk about them.
"""

from __future__ import annotations

import re

# Bracketed markers that look like ordinary text to a tokenizer which does not know them.
_LITERAL = (
    "<start_of_turn>",  # Gemma
    "<end_of_turn>",
    "[INST]",  # Llama 2, Mistral
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "[SYSTEM_PROMPT]",  # Mistral
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[|system|]",  # EXAONE
    "[|user|]",
    "[|assistant|]",
    "[|endofturn|]",
    "[gMASK]",  # GLM
    "<turn|>",  # Gemma, newer turns
    "<eoh>",  # InternLM
    "<eoa>",
)

# `<|name|>` covers ChatML, Llama 3 and 4 headers, Phi, Cohere, GLM, Granite, harmony, Zephyr, Tulu;
# the bar may be DeepSeek's full-width one. Operators such as `<|>` have nothing between the bars.
_BARRED = r"<[|｜][^\s<>|｜]{1,48}[|｜]>"
_OPEN_BARRED = r"<\|turn>"

MARKER = re.compile("|".join([_BARRED, _OPEN_BARRED, *map(re.escape, _LITERAL)]))

# What turn tokens are named after, as against begin and end of text (`<bos>`, `<|endoftext|>`).
_TURN_NAME = re.compile(
    r"im_start|im_end|im_sep|im_user|turn|eot|eom|header|role|user|assistant|system|chatbot|human"
    r"|message|channel|\[/?INST\]|<</?SYS>>|^<\|(end|return|call)\|>$|^<eo[ha]>$",
    re.IGNORECASE,
)


def find_marker(text: str) -> tuple[int, str] | None:
    """(character position, marker) of the first chat marker written out in the text, or None."""
    found = MARKER.search(text)
    return (found.start(), found.group()) if found else None


def is_turn_token(token: str) -> bool:
    """Whether a special token begins or ends a chat turn, going by its name."""
    return not token.isalnum() and _TURN_NAME.search(token) is not None
