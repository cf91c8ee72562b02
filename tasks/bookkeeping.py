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


class RunBook:
    """Writes one run into the store: the run, its iteration, stages, artifacts, metrics."""

    def __init__(self, store: Store, run_id: str, iteration_id: int) -> None:
        self.store = store
        self.run_id = run_id
        self.iteration_id = iteration_id

    @classmethod
    def begin(
        cls,
        config: RunConfig,
        run_id: str,
        folder: Path,
        model_sha256: str,
        flow_run_id: str | None,
    ) -> RunBook:
        """Start or resume the run and its first iteration."""
        made_by = environment()
        store = the_store()
        store.start_run(
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
        sampling = config.model_dump(mode="json", include={"instructions", "responses", "critics"})
        iteration = store.start_iteration(
            IterationCreate(run_id=run_id, number=1, seed=config.run.seed, params=sampling)
        )
        return cls(store, run_id, iteration.id)

    @contextmanager
    def stage(self, name: str, device: str | None = None) -> Iterator[dict[str, Any]]:
        """Record a stage around a block; what the block puts into the dict are its counts."""
        attempt = self.store.start_stage(
            StageRunCreate(run_id=self.run_id, iteration_id=self.iteration_id, stage=name, device=device)
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
        manifest = read_manifest(artifact.path)
        parents = [
            read_manifest(artifact.path / parent["path"])["content_sha256"] for parent in manifest["parents"]
        ]
        self.store.record_artifact(
            ArtifactCreate(
                run_id=self.run_id,
                kind=artifact.kind,
                path=str(artifact.path),
                sha256=artifact.content_sha256,
                manifest_sha256=artifact.manifest_sha256,
                parents=parents,
            )
        )

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
        """Close the iteration with its QC verdict, and the run as done."""
        self.store.end_iteration(self.iteration_id, Verdict(verdict))
        self.store.end_run(self.run_id, RunStatus.DONE)

    def fail(self, interrupted: bool) -> None:
        """Close the run as failed or interrupted; it can be resumed."""
        status = RunStatus.INTERRUPTED if interrupted else RunStatus.FAILED
        self.store.end_run(self.run_id, status)
