"""Parts of a gated run that need no server: its name, its budget, its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.config import RunConfig
from core.errors import BudgetError, ConfigError
from core.store import IterationCreate, StageRunCreate, StageRunEnd, StageStatus, Store, open_store
from tasks.gated_run import GatedRun, named_config, run_name_for
from tests.contract.test_store_databases import new_run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


def gated(store: Store, tmp_path: Path, spent_hours: float, **cost: float) -> GatedRun:
    """A run at 3 USD an hour with one iteration that took so long."""
    config = RunConfig.model_validate({"cost": {"device_usd_per_hour": 3.0, **cost}, "run": {"project": "p"}})
    run = store.start_run(new_run(project="p"))
    iteration = store.start_iteration(IterationCreate(run_id=run.id, number=1, seed=1))
    stage = store.start_stage(
        StageRunCreate(
            run_id=run.id, iteration_id=iteration.id, stage="x", device_usd_micros_per_hour=3_000_000
        )
    )
    store.end_stage(stage.id, StageRunEnd(status=StageStatus.DONE, seconds=3600 * spent_hours))
    home: Any = SimpleNamespace(folder=tmp_path, run_id=run.id)
    return GatedRun(config, home, store)


def test_an_iteration_that_the_budget_does_not_cover_is_refused(store: Store, tmp_path: Path) -> None:
    """3 USD were spent on one iteration; with 5 in all there is no room for a second."""
    run = gated(store, tmp_path, 1.0, budget_usd=5.0)
    with pytest.raises(BudgetError, match=r"needs about \$3\.00 but \$2\.00 of \$5\.00 is left") as caught:
        run.require_budget(2)
    assert caught.value.exit_code == 5


def test_an_iteration_that_the_budget_covers_is_not_refused(store: Store, tmp_path: Path) -> None:
    """Exactly enough is enough."""
    gated(store, tmp_path, 1.0, budget_usd=6.0).require_budget(2)


def test_nothing_starts_on_an_empty_budget(store: Store, tmp_path: Path) -> None:
    """A first iteration on a priced device needs something left; one's own machine needs nothing."""
    with pytest.raises(BudgetError):
        gated(store, tmp_path, 0.0, budget_usd=0.0).require_budget(1)
    gated(store, tmp_path, 0.0, budget_usd=0.0, device_usd_per_hour=0.0).require_budget(1)


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden", "x" * 57, "a/b", "ü"])
def test_names_that_no_folder_should_have_are_refused(name: str) -> None:
    """A run's name becomes a folder, so it cannot leave its place or be a long story."""
    with pytest.raises(ConfigError, match="run name"):
        named_config(RunConfig(), name)


def test_a_name_comes_from_the_parameters_or_the_file() -> None:
    """The asked name, else the config file's with the start of the flow run's id."""
    assert run_name_for({"run_name": "mine", "config": "configs/demo.yaml"}, "12345678-9") == "mine"
    assert run_name_for({"run_name": "", "config": "configs/demo.yaml"}, "12345678-9") == "demo-12345678"
    assert named_config(RunConfig(), "mine").run.output_dir.name == "mine"
