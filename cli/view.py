"""What a running stage looks like: a live bar on a terminal, a heartbeat line everywhere else."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from core.progress import ProgressEvent

HEARTBEAT_S = 15.0
PLAIN_WIDTH = 160


def wide_console() -> Console:
    """Standard output; where it is no terminal, wide enough for tables."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)


def describe(event: ProgressEvent) -> str:
    """`12 of 100 accepted, 83 tok/s, about 4 min to go, $0.10 spent, $0.42 projected`."""
    parts = []
    if event.total:
        parts.append(f"{event.done:g} of {event.total:g} {event.unit}")
    if event.rate:
        parts.append(f"{event.rate:.0f} {event.rate_unit}")
    if event.eta_s is not None:
        parts.append(f"about {_duration(event.eta_s)} to go")
    if event.total:
        parts.append(f"${event.spent_usd:.2f} spent")
    if event.projected_usd is not None:
        parts.append(f"${event.projected_usd:.2f} projected")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


class HeartbeatView:
    """Plain lines: each new stage at once, further news at most every `HEARTBEAT_S`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.stage = ""
        self.last = 0.0

    def __enter__(self) -> HeartbeatView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.total is not None and event.stage == self.stage and now - self.last < HEARTBEAT_S:
            return
        self.stage, self.last = event.stage, now
        detail = describe(event)
        tail = f" ({detail})" if detail else ""
        stamp = f"{now - self.started:6.0f} s"
        self.console.print(f"{stamp}  {event.stage}: {event.message}{tail}", markup=False)


class LiveView:
    """One bar that follows the run, with the stages that are done above it."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[stage]}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self.bar = self.progress.add_task("starting", stage="", total=None)
        self.stage = ""

    def __enter__(self) -> LiveView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: ProgressEvent) -> None:
        if event.total is None or event.stage != self.stage:
            self.progress.console.print(f"{event.stage}: {event.message}", markup=False)
        self.stage = event.stage
        self.progress.update(
            self.bar,
            stage=event.stage,
            description=f"{describe(event)}  {event.message}" if event.total else event.message,
            total=event.total,
            completed=min(event.done, event.total) if event.total else 0,
        )


def view_for(console: Console) -> LiveView | HeartbeatView:
    """The live view on a terminal, the heartbeat elsewhere."""
    return LiveView(console) if console.is_terminal else HeartbeatView(console)
