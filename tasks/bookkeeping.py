"""The store's side of a run: each stage is recorded while it runs and when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.config import RunConfig, dump_yaml
from core.errors import StagegateError
from core.provenance.environment import environment
from core.provenance.manifest import Artifact, read_manifest
from core.settings import get_settings
from core.store import (
    ArtifactCreate,
    IterationCreate,
    MetricVerdict,
    PipelineRunCreate,
    QcMetricCreate,
    RunStatus,
    StageRunCreate,
    StageRunEnd,
    StageStatus,
    Store,
    Verdict,
    open_store,
)


@lru_cache(maxsize=1)
def the_store() -> Store:
    """The store of this process, opened once."""
    return open_store(get_settings().store_url)


def start_run(
    config: RunConfig, run_id: str, folder: Path, model_sha256: str | None, flow_run_id: str | None
) -> None:
    """Start or resume a run in the store."""
    made_by = environment()
    the_store().start_run(
        PipelineRunCreate(
            id=run_id,
            project=config.run.project,
            name=config.run.name,
            config_hash=config.config_hash(),
            config_yaml=dump_yaml(config),
            model_source=config.model.source,
            model_sha256=model_sha256,
            output_dir=str(folder),
            git_sha=made_by["git_sha"],
            git_dirty={"clean": False, "dirty": True}.get(made_by["git_state"]),
            flow_run_id=flow_run_id,
        )
    )


def record_artifact(run_id: str, artifact: Artifact) -> None:
    """Record a sealed artifact in the store, with the content hashes that it was made from."""
    manifest = read_manifest(artifact.path)
    parents = [
        read_manifest(artifact.path / parent["path"])["content_sha256"] for parent in manifest["parents"]
    ]
    the_store().record_artifact(
        ArtifactCreate(
            run_id=run_id,
            kind=artifact.kind,
            path=str(artifact.path),
            sha256=artifact.content_sha256,
            manifest_sha256=artifact.manifest_sha256,
            parents=parents,
        )
    )


class RunBook:
    """Writes one iteration into the store: stages, artifacts, metrics; and its run, if it stands alone."""

    def __init__(
        self, store: Store, run_id: str, iteration_id: int, usd_micros_per_hour: int, *, alone: bool
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.iteration_id = iteration_id
        self.usd_micros_per_hour = usd_micros_per_hour
        self.alone = alone

    @classmethod
    def begin(
        cls,
        config: RunConfig,
        run_id: str,
        folder: Path,
        model_sha256: str,
        flow_run_id: str | None,
    ) -> RunBook:
        """Start or resume a run that is one iteration and nothing else."""
        start_run(config, run_id, folder, model_sha256, flow_run_id)
        return cls._of(config, run_id, 1, alone=True)

    @classmethod
    def join(cls, config: RunConfig, run_id: str, number: int) -> RunBook:
        """Start or resume an iteration of a run that others start and end."""
        return cls._of(config, run_id, number, alone=False)

    @classmethod
    def _of(cls, config: RunConfig, run_id: str, number: int, *, alone: bool) -> RunBook:
        sampling = config.model_dump(mode="json", include={"instructions", "responses", "critics"})
        iteration = the_store().start_iteration(
            IterationCreate(run_id=run_id, number=number, seed=config.run.seed, params=sampling)
        )
        price = round(config.cost.device_usd_per_hour * 1_000_000)
        return cls(the_store(), run_id, iteration.id, price, alone=alone)

    @contextmanager
    def stage(self, name: str, device: str | None = None) -> Iterator[dict[str, Any]]:
        """Record a stage around a block; what the block puts into the dict are its counts."""
        attempt = self.store.start_stage(
            StageRunCreate(
                run_id=self.run_id,
                iteration_id=self.iteration_id,
                stage=name,
                device=device,
                device_usd_micros_per_hour=self.usd_micros_per_hour,
            )
        )
        counts: dict[str, Any] = {}
        try:
            yield counts
        except BaseException as error:
            # An interrupt is not a failure of the stage: it goes on when the run is resumed.
            failed = isinstance(error, Exception)
            status = StageStatus.FAILED if failed else StageStatus.INTERRUPTED
            text = str(error) if isinstance(error, StagegateError) else repr(error)
            self.store.end_stage(attempt.id, StageRunEnd(status=status, error=text))
            raise
        self.store.end_stage(attempt.id, StageRunEnd(status=StageStatus.DONE, **counts))

    def artifact(self, artifact: Artifact) -> None:
        """Record a sealed artifact with the content hashes that it was made from."""
        record_artifact(self.run_id, artifact)

    def metrics(self, summary: dict[str, Any]) -> None:
        """Record the QC metrics of the iteration."""
        self.store.record_metrics(
            [
                QcMetricCreate(
                    run_id=self.run_id,
                    iteration_id=self.iteration_id,
                    name=name,
                    unit=metric["unit"],
                    verdict=MetricVerdict(metric["verdict"]),
                    numerator=metric["numerator"],
                    denominator=metric["denominator"],
                    value=metric["value"],
                    bound=metric["bound"],
                    threshold=metric["limit"],
                )
                for name, metric in summary["metrics"].items()
            ]
        )

    def end(self, verdict: str) -> None:
        """Close the iteration with its QC verdict, and a run that is nothing else as done."""
        self.store.end_iteration(self.iteration_id, Verdict(verdict))
        if self.alone:
            self.store.end_run(self.run_id, RunStatus.DONE)

    def fail(self, interrupted: bool) -> None:
        """Close a run that stands alone as failed or interrupted; it can be resumed."""
        if self.alone:
            status = RunStatus.INTERRUPTED if interrupted else RunStatus.FAILED
            self.store.end_run(self.run_id, status)
