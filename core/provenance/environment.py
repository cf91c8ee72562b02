"""What code and packages made something. Unknown is never reported as clean."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "bitsandbytes",
    "prefect",
    "datasketch",
    "numpy",
    "scipy",
)
_ROOT = Path(__file__).resolve().parents[2]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def environment() -> dict[str, Any]:
    """Git commit and state of the code, package versions, Python, platform.

    `git_state` is `clean`, `dirty` or `unknown`; only the first means that `git_sha` says it all.
    """
    sha = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    state = "unknown" if sha is None or changes is None else "dirty" if changes else "clean"
    return {
        "git_sha": sha,
        "git_state": state,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
