"""A tiny language model made on the spot, for tests and `configs/smoke.yaml`.

A Llama of under a million weights with its own byte-level tokenizer, trained from nothing on
`tiny_corpus` in seconds on a CPU, saved as an ordinary Hugging Face directory. Like a base model
it continues text: numbered lists of instructions and `Instruction:` / `Response:` pairs. Nothing
that it says about the world counts; measurements on it test the pipeline, never the method.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import StorageError
from core.models.tiny_training import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    Recipe,
    make_model,
    make_tokenizer,
    train,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECIPE_FILE = "tiny_recipe.json"
RECIPE = Recipe()


def build_tiny_model(target_dir: Path) -> Path:
    """The directory of the trained model: made when missing or of another recipe, else reused.

    Takes about 25 s on two cores the first time. Safe to call from several processes at once: one
    of them builds, the others wait. Leaves the caller's random numbers as they were.

    Raises:
        StorageError: the directory cannot be written, or holds something that is not a tiny model.
    """
    from filelock import FileLock

    target = Path(target_dir)
    wanted = recipe_hash()
    if _holds(target, wanted):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _holds(target, wanted):
                _build_and_swap(target, wanted)
    except OSError as error:
        raise StorageError(
            f"The tiny test model cannot be written to {target}: {error.strerror or error}. "
            "It takes about 4 MB; free some space or choose a directory that you may write to.",
            path=str(target),
        ) from error
    return target


def recipe_hash() -> str:
    """Hex sha256 over the recipe and the sources of grammar and trainer."""
    digest = hashlib.sha256(json.dumps(asdict(RECIPE), sort_keys=True).encode())
    for source in ("tiny_corpus.py", "tiny_training.py"):
        digest.update(Path(__file__).with_name(source).read_bytes())
    return digest.hexdigest()


def _holds(target: Path, wanted: str) -> bool:
    try:
        record = json.loads((target / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("recipe_sha256") == wanted


def _build_and_swap(target: Path, wanted: str) -> None:
    """Builds beside the target and renames: a killed build never looks like a finished one."""
    _refuse_foreign(target)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        record = {"recipe_sha256": wanted, "loss_nats": _train_into(work), "recipe": asdict(RECIPE)}
        (work / RECIPE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.chmod(work, 0o755)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refuse_foreign(target: Path) -> None:
    """Only an older tiny model, or nothing, may be replaced."""
    if target.exists() and not (target / RECIPE_FILE).is_file():
        raise StorageError(
            f"{target} exists and is not a tiny test model, so it is left alone. "
            "Choose another directory or remove this one.",
            path=str(target),
        )


def _train_into(directory: Path) -> float:
    import torch

    with torch.random.fork_rng(devices=[]), _threads(RECIPE.threads):
        torch.manual_seed(RECIPE.seed)
        tokenizer = make_tokenizer(RECIPE)
        model = make_model(RECIPE, tokenizer)
        loss = train(model, tokenizer, RECIPE)
    model.save_pretrained(directory)
    _save_tokenizer(tokenizer, directory)
    return round(loss, 3)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A fixed number of threads: sums are split alike, so the weights come out alike."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=RECIPE.context_tokens,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)
