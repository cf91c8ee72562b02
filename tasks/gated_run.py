"""A gated run: one folder, one record in the store, iterations inside it, gates between them.

runs/NAME/
  config.yaml run.json      the run's config, as it was started
  iterations/1/ 2/ ...      each a whole pilot iteration with its own chain of manifests
  gates/pilot-1/ ...        what was shown, who reviewed, who decided; sealed with its iteration as parent
  manifest.json             written last, over the gates
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from core.config import RunConfig, differences, dump_yaml, load_config, parse_yaml
from core.errors import BudgetError, ConfigError, RunMismatchError
from core.files import storage_error
from core.history import iteration_config, iteration_records
from core.iterations import IterationRecord, dollars
from core.provenance.home import RunHome
from core.provenance.manifest import Artifact
from core.store import RunStatus, Store
from tasks.bookkeeping import record_artifact, start_run, the_store

ITERATIONS = "iterations"
GATES = "gates"
LONGEST_NAME = 56  # the iteration's number is added to it, and a run's name has at most 64 characters


def run_name_for(parameters: Mapping[str, Any], flow_run_id: str) -> str:
    """The name that a flow run's parameters ask for; made from the config file's where they ask for none."""
    asked = str(parameters.get("run_name") or "")
    return asked or f"{Path(str(parameters.get('config') or 'run')).stem}-{flow_run_id[:8]}"


def resolve_config(config_file: str, overrides: list[str], run_name: str, flow_run_id: str) -> RunConfig:
    """The config of this flow run: as it was recorded when it started, or read from the file now.

    The record comes first, so that a file edited while the run waits for days changes nothing.

    Raises:
        ConfigError: the file has problems, or the name is too long.
    """
    known = the_store().find_run_of_flow(flow_run_id)
    if known is not None:
        return parse_yaml(known.config_yaml)
    name = run_name_for({"run_name": run_name, "config": config_file}, flow_run_id)
    return named_config(load_config(Path(config_file), overrides), name)


def named_config(config: RunConfig, name: str) -> RunConfig:
    """The config of a gated run with this name, in a folder of this name beside the config's own.

    Raises:
        ConfigError: the name is too long, or holds characters that no folder should have.
    """
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"run name {name!r} has {len(name)} characters; at most {LONGEST_NAME} fit")
    values = config.model_dump(mode="json")
    values["run"] |= {"name": name, "output_dir": str(config.run.output_dir.absolute().parent / name)}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"run name {name!r} cannot be used: it takes letters, digits, dots, dashes and underscores, and "
            "begins with a letter or digit",
            problems=[],
        ) from error


class GatedRun(AbstractContextManager["GatedRun"]):
    """An open gated run. One process at a time has it open; while it waits at a gate, none has."""

    def __init__(self, config: RunConfig, home: RunHome, store: Store) -> None:
        self.config = config
        self.home = home
        self.store = store
        self.folder = home.folder
        self.run_id = home.run_id

    @classmethod
    def open(cls, config: RunConfig, flow_run_id: str) -> GatedRun:
        """Start the run, or take it up again.

        Raises:
            RunMismatchError: the folder holds a run of another kind or config, or somebody works in it.
            StorageError: the folder cannot be written.
        """
        folder = config.run.output_dir.absolute()
        values = config.model_dump(mode="json")
        known = RunHome.known_record(folder)
        if known is not None and not (folder / ITERATIONS).is_dir():
            raise RunMismatchError(
                f"{folder} holds a pilot that stands alone, not a gated run; choose another run name",
                differences=[],
            )
        changed = differences(known["config"], values) if known else []
        try:  # before run.json: a folder with a record and without iterations is a pilot that stands alone
            (folder / ITERATIONS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        home = RunHome(folder, values, config.config_hash()).open(dump_yaml(config), changed)
        start_run(config, home.run_id, folder, None, flow_run_id)
        return cls(config, home, the_store())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.home.close()

    @property
    def name(self) -> str:
        """What people call the run."""
        return self.config.run.name

    def records(self) -> list[IterationRecord]:
        """Its iterations so far, first to last."""
        return iteration_records(self.store, self.run_id)

    def iteration_config(self, number: int) -> RunConfig:
        """The config of an iteration, with its own name and place.

        Raises:
            ConfigError: nobody asked for this iteration.
        """
        config = iteration_config(self.store, self.run_id, self.config, number)
        values = config.model_dump(mode="json")
        values["run"] |= {
            "name": f"{self.name}-{number}",
            "output_dir": str(self.iteration_folder(number)),
        }
        return RunConfig.model_validate(values)

    def iteration_folder(self, number: int) -> Path:
        """Where an iteration's artifacts are."""
        return self.folder / ITERATIONS / str(number)

    def gate_folder(self, key: str) -> Path:
        """Where a gate's record is."""
        return self.folder / GATES / key

    def require_budget(self, number: int) -> None:
        """Refuse an iteration that what is left of the project's budget does not cover.

        Raises:
            BudgetError: says what it needs by the dearest iteration so far, and what is left.
        """
        budget = round(self.config.cost.budget_usd * 1_000_000)
        spent = self.store.spent_usd_micros(project=self.config.run.project)
        needed = max((r.cost_usd_micros or 0 for r in self.records()), default=0)
        free = self.config.cost.device_usd_per_hour == 0 and needed == 0
        if (spent >= budget and not free) or spent + needed > budget:
            raise BudgetError(
                f"iteration {number} of {self.name} needs about {dollars(needed)} but "
                f"{dollars(budget - spent)} of {dollars(budget)} is left in project "
                f"{self.config.run.project}; raise cost.budget_usd and start it again under the same name",
                needed_usd_micros=needed,
                left_usd_micros=budget - spent,
            )

    def seal(self, gates: list[Artifact], status: RunStatus, meta: Mapping[str, object]) -> Artifact:
        """End the run: its manifest over its gates, and its status in the store."""
        if (self.folder / "manifest.json").is_file():
            artifact = self.home.finished(".")
            assert artifact is not None
        else:
            artifact = self.home.seal_run(gates, dict(meta))
        record_artifact(self.run_id, artifact)
        self.store.end_run(self.run_id, status)
        return artifact
