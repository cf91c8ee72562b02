"""The verbs of the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from core.errors import BadInputError, RunMismatchError
from core.store import (
    ArtifactCreate,
    IterationCreate,
    MetricVerdict,
    PipelineRunPublic,
    QcMetricCreate,
    RunStatus,
    StageRunCreate,
    StageRunEnd,
    StageStatus,
    Store,
    Verdict,
    open_store,
)
from core.store.engine import make_engine
from core.store.models import PipelineRun
from core.store.urls import parse_store_url
from tests.contract.test_store_databases import (  # noqa: F401
    new_run,
    postgres_url,
    store,
    store_url,
)

DONE = StageRunEnd(status=StageStatus.DONE, records_in=10, records_out=4, prompt_tokens=2**40)


@pytest.fixture
def run(store: Store) -> PipelineRunPublic:  # noqa: F811
    """A run in progress."""
    return store.start_run(new_run())


def metric(run_id: str, name: str = "runaway", **values: Any) -> QcMetricCreate:
    """A valid metric with some fields changed."""
    good: dict[str, Any] = {"unit": "ratio", "verdict": MetricVerdict.PASS}
    return QcMetricCreate(run_id=run_id, name=name, **{**good, **values})


class TestRuns:
    """Runs: started, resumed, ended, found."""

    def test_everything_given_is_read_back(self, store: Store) -> None:  # noqa: F811
        """A run comes back field by field as it was given, running and without an end."""
        given = new_run(config_yaml="name: ü 漢字\n", git_dirty=None, model_sha256=None)
        run = store.start_run(given)
        assert {**run.model_dump(), **given.model_dump()} == run.model_dump()
        assert (run.status, run.ended_at) == (RunStatus.RUNNING, None)
        assert store.runs() == [run]

    def test_the_same_id_resumes_the_run(self, store: Store) -> None:  # noqa: F811
        """Starting under a known id reopens that run and follows where it lies now."""
        first = store.start_run(new_run(flow_run_id="flow-1"))
        store.end_run(first.id, RunStatus.FAILED)
        again = store.start_run(new_run(id=first.id, output_dir="/moved", git_sha="34" * 20))
        assert (again.status, again.ended_at) == (RunStatus.RUNNING, None)
        assert (again.output_dir, again.flow_run_id) == ("/moved", "flow-1")
        assert (again.git_sha, again.created_at) == (first.git_sha, first.created_at)
        assert len(store.runs()) == 1

    def test_another_config_or_model_is_not_resumed(self, store: Store) -> None:  # noqa: F811
        """A changed config or model under a known id is refused with what differs."""
        run = store.start_run(new_run())
        store.end_run(run.id, RunStatus.DONE)
        with pytest.raises(RunMismatchError, match=r"config_hash was c0.*now d1") as caught:
            store.start_run(new_run(id=run.id, config_hash="d1" * 32, model_sha256=None))
        assert set(caught.value.values["differences"]) == {"config_hash", "model_sha256"}
        assert store.find_run(run.id).status is RunStatus.DONE

    def test_two_processes_may_start_the_same_run(self, store: Store) -> None:  # noqa: F811
        """Whoever comes second resumes the run, even if it was not yet visible when it looked."""
        given = new_run(id=str(uuid4()))
        with ThreadPoolExecutor(1) as pool:
            with store.transaction() as session:
                session.add(PipelineRun.model_validate(given))
                session.flush()
                second = pool.submit(store.start_run, given)
                time.sleep(0.3)
                assert not second.done()
            assert second.result(timeout=20).status is RunStatus.RUNNING
        assert len(store.runs()) == 1

    def test_a_run_ends_once(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Ending again in the same way changes nothing; in another way is refused."""
        ended = store.end_run(run.id, RunStatus.DONE)
        assert ended.ended_at is not None and ended.ended_at >= ended.created_at
        assert store.end_run(run.id, RunStatus.DONE) == ended
        with pytest.raises(BadInputError, match="already ended as done, not failed"):
            store.end_run(run.id, RunStatus.FAILED)
        with pytest.raises(BadInputError, match="cannot end as running"):
            store.end_run(run.id, RunStatus.RUNNING)

    def test_ending_a_run_closes_what_was_left_open(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """No stage stays running in a run that has ended, and none starts in it."""
        done = store.start_stage(StageRunCreate(run_id=run.id, stage="generate"))
        store.end_stage(done.id, DONE)
        store.start_stage(StageRunCreate(run_id=run.id, stage="qc"))
        store.end_run(run.id, RunStatus.INTERRUPTED)
        states = [stage.status for stage in store.stages(run.id)]
        assert states == [StageStatus.DONE, StageStatus.INTERRUPTED]
        with pytest.raises(BadInputError, match="has ended as interrupted; resume it"):
            store.start_stage(StageRunCreate(run_id=run.id, stage="qc"))
        with pytest.raises(BadInputError, match="has ended"):
            store.start_iteration(IterationCreate(run_id=run.id, number=1, seed=42))

    def test_runs_are_found_by_what_people_know(self, store: Store) -> None:  # noqa: F811
        """By id, start of id, name (the newest of it), project and output directory."""
        first = store.start_run(new_run(name="pilot"))
        second = store.start_run(new_run(name="pilot", project="other", output_dir="runs/b"))
        third = store.start_run(new_run(name="10%_done"))
        assert store.find_run(first.id) == first
        assert store.find_run(third.id[:8].upper()) == third
        assert store.find_run("pilot") == second
        assert store.find_run("pilot", project="demo") == first
        assert store.find_run_in("runs/b") == second
        assert store.find_run_in("runs/none") is None
        assert store.latest_run() == third
        assert store.latest_run(project="other") == second
        assert store.runs(project="demo") == [third, first]
        assert store.runs(limit=2) == [third, second]

    def test_a_run_that_is_not_there_is_explained(self, store: Store) -> None:  # noqa: F811
        """An unknown or ambiguous key names the runs that there are; wildcards match nothing."""
        assert store.latest_run() is None
        with pytest.raises(BadInputError, match="no run 'x'; the newest runs are: none"):
            store.find_run("x")
        stem = str(uuid4())[:-1]
        for digit in "ab":
            store.start_run(new_run(id=stem + digit, name=f"run-{digit}"))
        with pytest.raises(BadInputError, match=f"several runs begin with.*{stem}a"):
            store.find_run(stem)
        for key in ("%%%%%%%%", "________", stem[:7]):
            with pytest.raises(BadInputError, match="newest runs are: run-b, run-a"):
                store.find_run(key)
        for verb in (store.end_run, store.find_run):
            with pytest.raises(BadInputError, match="no run"):
                verb(str(uuid4()), **({"status": RunStatus.DONE} if verb == store.end_run else {}))


class TestIterations:
    """Iterations: started once per number, judged once."""

    def test_an_iteration_is_started_once(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """Repeating the start gives the same row; another seed or parameter is refused."""
        given = IterationCreate(run_id=run.id, number=1, seed=2**63 - 1, params={"t": [0.7, None]})
        first = store.start_iteration(given)
        assert store.start_iteration(given) == first
        assert (first.seed, first.params) == (2**63 - 1, {"t": [0.7, None]})
        with pytest.raises(RunMismatchError, match=r"seed was .* now 43"):
            store.start_iteration(IterationCreate(run_id=run.id, number=1, seed=43))
        store.start_iteration(IterationCreate(run_id=run.id, number=0, seed=1))
        assert [row.number for row in store.iterations(run.id)] == [0, 1]

    def test_a_verdict_stands(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """An iteration that failed cannot be turned into one that passed."""
        row = store.start_iteration(IterationCreate(run_id=run.id, number=1, seed=42))
        ended = store.end_iteration(row.id, Verdict.FAIL)
        assert ended.ended_at is not None
        assert store.end_iteration(row.id, Verdict.FAIL) == ended
        with pytest.raises(BadInputError, match="has the verdict fail; for pass start a new"):
            store.end_iteration(row.id, Verdict.PASS)
        with pytest.raises(BadInputError, match="no iteration with id"):
            store.end_iteration(row.id + 1, Verdict.PASS)
        assert store.iterations(run.id) == [ended]


class TestStages:
    """Stages: every attempt is kept, one is running."""

    def test_a_stage_that_died_is_interrupted_by_the_next_attempt(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """The attempt of a dead process becomes interrupted, and cannot end behind the new one."""
        create = StageRunCreate(run_id=run.id, stage="generate", device="cpu")
        dead = store.start_stage(create)
        alive = store.start_stage(create)
        assert [row.status for row in store.stages(run.id)] == ["interrupted", "running"]
        assert [row.attempt for row in store.stages(run.id)] == [1, 2]
        with pytest.raises(BadInputError, match=r"attempt 1\).*given up.*attempt 2 took over"):
            store.end_stage(dead.id, DONE)
        assert store.end_stage(alive.id, DONE).status is StageStatus.DONE

    def test_other_stages_are_left_alone(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """Shards, iterations and runs have attempts of their own."""
        other = store.start_run(new_run(name="second"))
        numbers = [store.start_iteration(IterationCreate(run_id=run.id, number=n, seed=n)).id for n in (1, 2)]
        for run_id, iteration_id, stage in (
            (run.id, None, "generate"),
            (run.id, None, "generate/shard-02"),
            (run.id, numbers[0], "generate"),
            (run.id, numbers[1], "generate"),
            (other.id, None, "generate"),
        ):
            started = store.start_stage(StageRunCreate(run_id=run_id, iteration_id=iteration_id, stage=stage))
            assert started.attempt == 1
        assert {row.status for row in store.stages(run.id)} == {StageStatus.RUNNING}

    def test_a_stage_ends_once(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """What ended stays as it ended; saying the same again is fine."""
        row = store.start_stage(StageRunCreate(run_id=run.id, stage="generate"))
        ended = store.end_stage(row.id, DONE)
        assert (ended.records_out, ended.prompt_tokens) == (4, 2**40)
        assert store.end_stage(row.id, DONE) == ended
        for end in (
            StageRunEnd(status=StageStatus.DONE, records_out=5),
            StageRunEnd(status=StageStatus.FAILED, error="disk full"),
        ):
            with pytest.raises(BadInputError, match="already ended as done"):
                store.end_stage(row.id, end)
        with pytest.raises(BadInputError, match="no stage run with id"):
            store.end_stage(row.id + 1, DONE)

    def test_any_error_is_stored(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Control characters and broken surrogates in an error do not stop it from being stored."""
        row = store.start_stage(StageRunCreate(run_id=run.id, stage="generate"))
        end = StageRunEnd(status=StageStatus.FAILED, error="bad \x00 byte \ud83d 漢 " + "x" * 9000)
        stored = store.end_stage(row.id, end)
        assert stored.error is not None and stored.error.startswith("bad \\x00 byte \\ud83d 漢")
        assert store.stages(run.id) == [stored]

    def test_iterations_of_other_runs_are_refused(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """A stage, artifact or metric cannot be hung on a part of another run."""
        other = store.start_run(new_run(name="second"))
        iteration = store.start_iteration(IterationCreate(run_id=other.id, number=1, seed=1)).id
        stage = store.start_stage(StageRunCreate(run_id=other.id, stage="generate")).id
        with pytest.raises(BadInputError, match="has no iteration"):
            store.start_stage(StageRunCreate(run_id=run.id, stage="qc", iteration_id=iteration))
        with pytest.raises(BadInputError, match="has no iteration"):
            store.record_metrics([metric(run.id, iteration_id=iteration)])
        with pytest.raises(BadInputError, match="has no stage run"):
            store.record_artifact(
                ArtifactCreate(run_id=run.id, stage_run_id=stage, kind="pairs", path="p", sha256="a" * 64)
            )


class TestRecords:
    """Artifacts and metrics: recorded once, also when recorded twice."""

    def test_an_artifact_is_recorded_once(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """The same content of a kind is one row, which follows the file on disk."""
        good: dict[str, Any] = {"run_id": run.id, "kind": "pairs", "sha256": "a" * 64}
        first = store.record_artifact(ArtifactCreate(**good, path="old", parents=["b" * 64]))
        again = store.record_artifact(
            ArtifactCreate(**good, path="new", manifest_sha256="c" * 64, parents=["d" * 64])
        )
        assert (again.id, again.created_at) == (first.id, first.created_at)
        assert (again.path, again.manifest_sha256, again.parents) == ("new", "c" * 64, ["d" * 64])
        other = store.record_artifact(ArtifactCreate(**{**good, "kind": "qc"}, path="new"))
        assert store.artifacts(run.id) == [again, other]
        assert store.artifacts(run.id, kind="qc") == [other]

    def test_metrics_are_replaced_by_name(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """Judging an iteration again replaces its numbers and no one else's."""
        ids = [store.start_iteration(IterationCreate(run_id=run.id, number=n, seed=n)).id for n in (1, 2)]
        for iteration_id in (*ids, None):
            store.record_metrics(
                [
                    metric(run.id, iteration_id=iteration_id, numerator=1, denominator=93),
                    metric(run.id, "length", iteration_id=iteration_id, unit="tokens", value=33.5),
                ]
            )
        fail = metric(
            run.id,
            iteration_id=ids[1],
            numerator=20,
            denominator=2**33,
            value=0.25,
            bound=0.3,
            threshold=0.05,
            verdict=MetricVerdict.FAIL,
        )
        (changed,) = store.record_metrics([fail])
        assert {**changed.model_dump(), **fail.model_dump()} == changed.model_dump()
        assert [row.verdict for row in store.metrics(run.id)] == [
            "pass", "pass", "fail", "pass", "pass", "pass",
        ]  # fmt: skip
        assert store.metrics(run.id, iteration_id=ids[1])[0] == changed
        assert [row.name for row in store.metrics(run.id, iteration_id=ids[0])] == [
            "runaway",
            "length",
        ]

    def test_metrics_go_in_all_or_none(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """A call with a name twice or with two owners writes nothing."""
        other = store.start_run(new_run(name="second"))
        with pytest.raises(BadInputError, match="twice in one call: runaway"):
            store.record_metrics([metric(run.id), metric(run.id)])
        with pytest.raises(BadInputError, match="metrics of 2 iterations"):
            store.record_metrics([metric(run.id), metric(other.id)])
        assert store.record_metrics([]) == []
        assert store.metrics(run.id) == store.metrics(other.id) == []

    def test_verbs_for_a_run_that_is_not_there_are_refused(
        self,
        store: Store,  # noqa: F811
    ) -> None:
        """Nothing can be recorded for a run that the store does not hold."""
        nobody = str(uuid4())
        with pytest.raises(BadInputError, match="no run"):
            store.start_iteration(IterationCreate(run_id=nobody, number=1, seed=1))
        with pytest.raises(BadInputError, match="no run"):
            store.start_stage(StageRunCreate(run_id=nobody, stage="qc"))
        with pytest.raises(BadInputError, match="no run"):
            store.record_artifact(ArtifactCreate(run_id=nobody, kind="pairs", path="p", sha256="a" * 64))
        with pytest.raises(BadInputError, match="no run"):
            store.record_metrics([metric(nobody)])
        assert store.stages(nobody) == []


class TestTime:
    """Times: a zone in, UTC out."""

    @pytest.fixture
    def clocked(self, store_url: str) -> Iterator[Store]:  # noqa: F811
        """A store whose clock stands in Nepal and moves a minute and a microsecond at each look."""
        ticks = count()
        start = datetime(2025, 10, 26, 3, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))
        open_store(store_url).close()
        engine = make_engine(parse_store_url(store_url))
        step = timedelta(minutes=1, microseconds=1)
        with Store(engine, clock=lambda: start + next(ticks) * step) as made:
            yield made

    def test_times_come_back_in_utc(self, clocked: Store) -> None:
        """The same instant comes back, in UTC, to the microsecond, and durations are right."""
        run = clocked.start_run(new_run())
        assert clocked.find_run(run.id).created_at.isoformat() == "2025-10-25T21:45:00+00:00"
        row = clocked.start_stage(StageRunCreate(run_id=run.id, stage="generate"))
        clocked.end_stage(row.id, DONE)
        (read,) = clocked.stages(run.id)
        assert read.ended_at is not None
        assert read.ended_at.tzinfo is UTC
        assert read.seconds == 60.000001
        assert (read.ended_at - read.started_at).total_seconds() == read.seconds

    def test_a_clock_set_back_gives_no_negative_duration(self, store_url: str) -> None:  # noqa: F811
        """A clock that jumps back between start and end of a stage makes zero seconds of it."""
        times = iter(datetime(2025, 1, day, tzinfo=UTC) for day in (3, 2, 1))
        open_store(store_url).close()
        with Store(make_engine(parse_store_url(store_url)), clock=lambda: next(times)) as back:
            run = back.start_run(new_run())
            row = back.start_stage(StageRunCreate(run_id=run.id, stage="generate"))
            assert back.end_stage(row.id, DONE).seconds == 0.0
