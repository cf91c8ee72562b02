"""The contamination guard on tokenizers that are made here, one for each way to go wrong."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from core.errors import ContaminationError, ModelLoadError
from core.models.chat_probes import format_probes, probe_ids, turn_token_ids
from core.models.guard import GuardedEncoder
from core.models.markers import find_marker, is_turn_token
from core.models.tokenizer_check import check_tokenizer, require_ids_in

TEXTS = ("A user asked for an Instruction: and got a Response: to it.", "Water  freezes\nat zero.")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
)


def backend(specials: tuple[str, ...] = ("<bos>", "<eos>")) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS * 4, trainer)
    return made


def wrap(made: Tokenizer, **more: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", **more)


def around(before: str, after: str = "", specials: tuple[str, ...] = ("<bos>", "<eos>")) -> Tokenizer:
    made = backend(specials)
    known = [(name, made.token_to_id(name)) for name in specials]
    made.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(), special_tokens=known
    )
    return made


def test_prompt_ids_are_the_text_with_the_declared_bos() -> None:
    """With BOS, without, and as a continuation: the literal ids and at most one BOS; text survives."""
    made = backend()
    plain = tuple(made.encode(TEXTS[0], add_special_tokens=False).ids)
    assert GuardedEncoder(wrap(made), 0).encode(TEXTS[0]) == (0, *plain)
    assert GuardedEncoder(wrap(made), None).encode(TEXTS[0]) == plain
    assert GuardedEncoder(wrap(made), 0).encode_continuation(TEXTS[0]) == plain
    assert GuardedEncoder(wrap(made), 0).decode((0, *plain)) == TEXTS[0]


def test_encoder_ignores_what_the_tokenizer_would_add_cut_or_pad() -> None:
    """A post-processor, a truncation and a padding in the tokenizer change no prompt."""
    made = around("<bos> <eos>", "<eos>")
    plain = tuple(backend().encode(TEXTS[0], add_special_tokens=False).ids)
    tokenizer = wrap(made)
    made_inside = tokenizer.backend_tokenizer
    made_inside.enable_truncation(3)
    made_inside.enable_padding(length=500)
    assert GuardedEncoder(tokenizer, 0).encode(TEXTS[0]) == (0, *plain)


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHello<|im_end|>",
        "[INST] Hello [/INST]",
        "<<SYS>> Be kind. <</SYS>>",
        "<start_of_turn>user\nHello<end_of_turn>",
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>",
        "<|begin_of_text|>Hello",
        "<|user|>\nHello<|end|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello",
        "<｜User｜>Hello<｜Assistant｜>",
        "Some text before <|eot_id|>",
    ],
)
def test_chat_markers_written_as_text_are_refused(text: str) -> None:
    """A tokenizer that does not know a chat marker still does not let it through."""
    with pytest.raises(ContaminationError, match="chat marker") as refused:
        GuardedEncoder(wrap(backend()), 0).encode(text)
    assert refused.value.values["token"] in text


@pytest.mark.parametrize(
    "text",
    [
        "The user and the assistant read the system manual.",
        "Instruction: Name a fruit.\nResponse: An apple.\n\n### Response:",
        "In F#, x <| f and f |> x; in Haskell a <|> b, and p <|> q <|> r.",
        "An [INSTALL] note, <b>bold</b>, and <s>struck</s> text [1].",
        "",
    ],
)
def test_ordinary_text_passes(text: str) -> None:
    """Words about chats, operators, brackets and HTML are ordinary text."""
    encoder = GuardedEncoder(wrap(backend()), 0)
    assert encoder.decode(encoder.encode(text)) == text


@pytest.mark.parametrize("special", ["<|im_start|>", "<pad>", "<eos>", "<bos>", "<tool>"])
def test_control_token_is_named_with_position_and_id(special: str) -> None:
    """A special token inside a prompt is refused by its id, BOS too when it is not in front."""
    made = backend(("<bos>", "<eos>", "<pad>", "<|im_start|>", "<tool>"))
    encoder = GuardedEncoder(wrap(made), 0)
    with pytest.raises(ContaminationError, match="control token") as refused:
        encoder.encode(f"at{special} zero")
    values = refused.value.values
    token_id = made.token_to_id(special)
    ids = made.encode(f"at{special} zero", add_special_tokens=False).ids
    assert (values["token"], values["token_id"]) == (special, token_id)
    assert values["position"] == 1 + ids.index(token_id)


def test_bos_is_refused_in_front_when_the_policy_is_never() -> None:
    """A prompt that spells the BOS out gets no BOS past a policy of `never`, nor a second one."""
    for bos_id in (None, 0):
        with pytest.raises(ContaminationError, match="<bos>"):
            GuardedEncoder(wrap(backend()), bos_id).encode("<bos>Water")


def test_tokens_of_the_own_chat_template_are_refused() -> None:
    """An added token that is not special but that the chat template writes may not occur; words may."""
    made = backend()
    made.add_tokens(["@@turn@@", "plainword"])
    template = "{% for m in messages %}@@turn@@{{ m['role'] }} {{ m['content'] }}{% endfor %}"
    encoder = GuardedEncoder(wrap(made, chat_template=template), 0)
    assert encoder.encode("a plainword here")
    with pytest.raises(ContaminationError, match="@@turn@@"):
        encoder.encode("a @@turn@@ here")


def test_a_template_that_cannot_be_rendered_is_no_excuse() -> None:
    """A broken chat template leaves all other checks in place."""
    encoder = GuardedEncoder(wrap(backend(), chat_template="{{ boom( }}"), 0)
    assert encoder.chat is None
    with pytest.raises(ContaminationError):
        encoder.encode("<|im_start|>user")


def test_marker_in_the_vocabulary_without_being_special_is_refused() -> None:
    """A chat token that no list declares special is known by its name, also in foreign ids."""
    made = backend()
    made.add_tokens(["<|im_start|>"])
    token_id = made.token_to_id("<|im_start|>")
    encoder = GuardedEncoder(wrap(made), None)
    with pytest.raises(ContaminationError, match="im_start"):
        encoder.check_ids((5, token_id, 6))


def test_foreign_ids_are_held_against_the_bos_policy() -> None:
    """Ids without the declared BOS, or spelling a marker from pieces, are refused; honest ones pass."""
    encoder = GuardedEncoder(wrap(backend()), 0)
    encoder.check_ids(encoder.encode(TEXTS[0]))
    with pytest.raises(ContaminationError, match="begin-of-text"):
        encoder.check_ids(encoder.encode(TEXTS[0])[1:])
    pieces = backend().encode("[INST] hi", add_special_tokens=False).ids
    with pytest.raises(ContaminationError, match=r"\[INST\]"):
        encoder.check_ids((0, *pieces))


def test_bos_that_starts_a_chat_turn_is_refused() -> None:
    """A turn token does not become harmless by being declared the begin-of-text token."""
    made = backend(("<bos>", "<eos>", "<|im_start|>"))
    with pytest.raises(ContaminationError, match="chat turn"):
        GuardedEncoder(wrap(made), made.token_to_id("<|im_start|>"))


def test_normaliser_that_writes_into_prompts_is_refused() -> None:
    """A tokenizer that puts a sentence in front, or swaps words, is caught on its ids."""
    for rule in (normalizers.Prepend("You are helpful. "), normalizers.Replace("zero", "four")):
        made = backend()
        made.normalizer = rule
        with pytest.raises(ContaminationError, match="changes the prompt"):
            GuardedEncoder(wrap(made), 0).encode("Water freezes at zero.")
        assert check_tokenizer(wrap(made), ["Water freezes at zero."])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (around("<bos>", "<eos>"), "appends 1 token .'<eos>'"),
        (around("<bos> <bos>"), "puts in front of every text 2 tokens"),
        (around("<eos>"), "puts in front of every text 1 token"),
        (
            around("<bos> <|im_start|>", specials=("<bos>", "<eos>", "<|im_start|>")),
            "im_start",
        ),
    ],
    ids=["EOS appended", "BOS twice", "EOS in front", "chat token in front"],
)
def test_tokenizer_that_adds_tokens_is_reported(made: Tokenizer, said: str) -> None:
    """Everything that the post-processor puts around a text is named; one BOS alone is fine."""
    import re

    problems = check_tokenizer(wrap(made), TEXTS)
    assert problems and re.search(said, problems[0]), problems


def test_honest_tokenizers_are_not_reported() -> None:
    """No BOS, one BOS, and a chat template that nobody applies are no contamination."""
    assert check_tokenizer(wrap(backend()), TEXTS) == []
    assert check_tokenizer(wrap(around("<bos>")), TEXTS) == []
    assert check_tokenizer(wrap(backend(), chat_template=CHATML), TEXTS) == []


def test_cutting_and_padding_in_the_file_are_reported() -> None:
    """Truncation and padding that a tokenizer file switches on are named with their numbers."""
    tokenizer = wrap(backend())
    tokenizer.backend_tokenizer.enable_truncation(7)
    tokenizer.backend_tokenizer.enable_padding(pad_token="<eos>")
    problems = check_tokenizer(tokenizer, ())
    assert any("7 tokens" in p for p in problems) and any("pads" in p for p in problems)


def test_tokenizer_of_another_model_is_refused() -> None:
    """More tokens than embeddings, or far fewer, mean another family; a padded embedding is fine."""
    tokenizer = wrap(backend())
    size = len(tokenizer.get_vocab())
    require_ids_in(tokenizer, size + 8)
    for rows in (size - 1, 2 * size):
        with pytest.raises(ModelLoadError, match="another model"):
            require_ids_in(tokenizer, rows)


def test_chat_probes_use_only_formats_whose_tokens_exist() -> None:
    """The sentinels ask in the formats that a vocabulary can spell, with control tokens as one id."""
    made = backend(("<bos>", "<eos>", "<|im_start|>", "<|im_end|>"))
    encoder = GuardedEncoder(wrap(made), 0)
    (probe,) = format_probes(encoder)
    ids = probe_ids(encoder, probe, "Hi", "Water.")
    assert probe.name == "ChatML" and ids[:2] == (0, made.token_to_id("<|im_start|>"))
    assert ids.count(made.token_to_id("<|im_start|>")) == 2
    assert turn_token_ids(encoder) == (2, 3)
    assert format_probes(GuardedEncoder(wrap(backend()), 0)) == ()


@pytest.mark.parametrize(
    ("token", "turn"),
    [
        ("<|im_end|>", True),
        ("<end_of_turn>", True),
        ("<|eot_id|>", True),
        ("<|end|>", True),
        ("<｜User｜>", True),
        ("[/INST]", True),
        ("<eos>", False),
        ("<|endoftext|>", False),
        ("<|end_of_text|>", False),
        ("</s>", False),
        ("<｜end▁of▁sentence｜>", False),
        ("user", False),
    ],
)
def test_turn_tokens_are_told_from_text_ends(token: str, turn: bool) -> None:
    """What ends a chat turn is not what ends a text."""
    assert is_turn_token(token) is turn


def test_marker_position_is_reported() -> None:
    """The first marker of a text is found where it begins."""
    assert find_marker("abc <|im_end|> [INST]") == (4, "<|im_end|>")
    assert find_marker("nothing here") is None
