"""The store: all verbs behind one object.

Each verb is one transaction and can be repeated after a crash. Whoever writes about a run holds
that run's row (PostgreSQL) or the write lock (SQLite), so attempt numbers and "record it once" hold
between processes. Verbs take Create models, which are validated, and give Public models, which
have no session behind them. A further family of verbs is a class over `SessionSource`, added here.
"""

from __future__ import annotations

from core.store.gate_verbs import GateVerbs
from core.store.record_verbs import RecordVerbs
from core.store.review_verbs import ReviewVerbs
from core.store.run_verbs import RunVerbs
from core.store.stage_verbs import StageVerbs


class Store(RunVerbs, StageVerbs, RecordVerbs, GateVerbs, ReviewVerbs):
    """Runs, iterations, stages, artifacts, metrics, gates and reviews of one database. See `open_store`."""
