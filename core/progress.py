"""Where long work says how far it is. Listeners (terminal view, Prefect artifact) take what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """How far a stage is. `done` of `total` in `unit`; None where nobody can know yet.

    `rate` is per second and in `rate_unit`; `eta_s` counts computing still to come. `spent_usd` is
    what the run has cost so far, `projected_usd` what it will have cost at its end, both at the
    config's price for the device.
    """

    stage: str
    message: str
    done: float = 0
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    rate_unit: str = ""
    eta_s: float | None = None
    spent_usd: float = 0.0
    projected_usd: float | None = None


Listener = Callable[[ProgressEvent], None]
_listeners: list[Listener] = []


def emit(event: ProgressEvent) -> None:
    """Tell every listener of this process."""
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener hear everything that is emitted inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
