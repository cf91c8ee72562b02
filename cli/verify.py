"""`stagegate verify`: re-check a chain of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def verify(
    path: Annotated[Path, typer.Argument(help="A run's folder, or one of the artifacts in it.")],
) -> None:
    """Re-check every file and manifest from here to the oldest ancestor; name the first broken link."""
    from core.provenance.manifest import verify as verify_chain

    links = verify_chain(path)
    console = Console(highlight=False, soft_wrap=True)
    for link in links:
        plural = "file" if link.files == 1 else "files"
        console.print(f"[green]ok[/] {link.kind:<14} {link.files} {plural}  {link.path}")
    console.print(f"{len(links)} artifacts verified, the chain holds")
