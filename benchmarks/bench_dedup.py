"""Online de-duplication: seconds for 15,000 instructions, and memory per text at larger sizes.

Usage: bench_dedup.py [TEXTS ...]   (default 15000 and 100000; 1000000 takes about 10 minutes)
"""

from __future__ import annotations

import random
import sys

import psutil
from common import timed

from core.generation.pool import DedupPool
from core.prompts.seeds import load_seeds


def texts(count: int) -> list[str]:
    """Instructions mixed from the words of the seeds, a tenth of them repeated with a small change."""
    rng = random.Random(0)
    words = sorted({word for seed in load_seeds() for word in seed.instruction.split()})
    made: list[str] = []
    for _ in range(count):
        if made and rng.random() < 0.1:
            made.append(f"{rng.choice(made)} please")
        else:
            made.append(" ".join(rng.choices(words, k=rng.randint(6, 16))))
    return made


def main() -> None:
    """Print seconds, rate, duplicates found and memory for each size."""
    for count in [int(argument) for argument in sys.argv[1:]] or [15_000, 100_000]:
        todo = texts(count)
        before = psutil.Process().memory_info().rss
        with timed() as watch:
            pool = DedupPool(0.7, 3, 128)
            twins = sum(pool.add(str(i), text) is not None for i, text in enumerate(todo))
        grown = psutil.Process().memory_info().rss - before
        print(
            f"{count:>9,} texts  {watch.seconds:7.1f} s  {count / watch.seconds:7.0f} texts/s  "
            f"{twins} duplicates  {grown / len(pool) / 1024:.1f} KiB per kept text"
        )


if __name__ == "__main__":
    main()
