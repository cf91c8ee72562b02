"""Several processes on one store: nothing lost at once, nothing torn by kill -9, safe over a fork.

Run as a script, this file is the other processes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.store import (
    ArtifactCreate,
    MetricVerdict,
    PipelineRunCreate,
    QcMetricCreate,
    RunStatus,
    StageRunCreate,
    StageRunEnd,
    StageStatus,
    Store,
    open_store,
)

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
STAGES_EACH = 5
SHARED_RUN_ID = "00000000-0000-4000-8000-000000000001"


def _run(name: str, **values: Any) -> PipelineRunCreate:
    return PipelineRunCreate(
        project="demo",
        name=name,
        config_hash="c0" * 32,
        config_yaml="seed: 1\n",
        model_source="bundled",
        output_dir=f"runs/{name}",
        **values,
    )


def _one_stage(store: Store, run_id: str, stage: str, content: str) -> None:
    """Start a stage, leave an artifact and a metric, end it, and say so once all is stored."""
    started = store.start_stage(StageRunCreate(run_id=run_id, stage=stage))
    store.record_artifact(
        ArtifactCreate(
            run_id=run_id,
            stage_run_id=started.id,
            kind="pairs",
            path=f"{stage}.jsonl",
            sha256=hashlib.sha256(content.encode()).hexdigest(),
        )
    )
    store.record_metrics(
        [QcMetricCreate(run_id=run_id, name=stage, unit="count", value=1.0, verdict=MetricVerdict.PASS)]
    )
    store.end_stage(started.id, StageRunEnd(status=StageStatus.DONE, records_out=1))
    print(started.id, flush=True)


def _work(url: str) -> None:
    """Children that begin together: the store is not there yet when all of them open it."""
    wait_end, go_end = os.pipe()
    children = [_forked(_one_worker, url, number, wait_end, go_end) for number in range(PROCESSES)]
    os.close(go_end)  # the last writing end: now every child reads the end of the pipe
    sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))


def _forked(work: Callable[..., None], *arguments: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _one_worker(url: str, number: int, wait_end: int, go_end: int) -> None:
    """One of them, on a run of its own and on a run and a stage that all of them want."""
    os.close(go_end)
    os.read(wait_end, 1)
    with open_store(url) as store:
        store.start_run(_run("shared", id=SHARED_RUN_ID))
        for _ in range(STAGES_EACH):
            store.start_stage(StageRunCreate(run_id=SHARED_RUN_ID, stage="contested"))
        run = store.start_run(_run(f"run-{number}"))
        for index in range(STAGES_EACH):
            _one_stage(store, run.id, f"stage-{index}", f"{number} {index}")
        _one_stage(store, SHARED_RUN_ID, f"shard-{number}", "the same content")
        store.end_run(run.id, RunStatus.DONE)


def _write_until_killed(url: str) -> None:
    with open_store(url) as store:
        store.start_run(_run("killed", id=SHARED_RUN_ID))
        for index in range(100_000):
            _one_stage(store, SHARED_RUN_ID, f"stage-{index}", str(index))


def _hold_transaction(url: str) -> None:
    with open_store(url) as store, store.transaction() as session:
        session.connection().execute(
            text("UPDATE pipeline_run SET name = 'torn' WHERE id = :id"), {"id": SHARED_RUN_ID}
        )
        print("holding", flush=True)
        time.sleep(60)


def _fork(url: str) -> None:
    """Parent and children go on with the store that was opened before the fork."""

    def start_five(name: str) -> None:
        for index in range(5):
            store.start_run(_run(f"{name}-{index}"))

    with open_store(url) as store:
        store.start_run(_run("before"))
        children = [_forked(start_five, f"child-{child}") for child in range(3)]
        start_five("parent")
        sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))


def _other_process(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line and process.stderr is not None:
        pytest.fail(process.stderr.read())
    return line


def _killed(process: subprocess.Popen[str]) -> list[str]:
    """What the process had still said when kill -9 took it."""
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    return said.split()


def _check_file(url: str) -> None:
    if url.startswith("sqlite"):
        with open_store(url) as store, store.snapshot() as session:
            connection = session.connection()
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_eight_processes_at_once_lose_nothing(store_url: str) -> None:
    """Eight processes make the store at once and write at once; every row of each is there."""
    process = _other_process("work", store_url)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    with open_store(store_url) as store:
        own = [run for run in store.runs() if run.id != SHARED_RUN_ID]
        assert {run.name for run in own} == {f"run-{number}" for number in range(PROCESSES)}
        for run in own:
            assert run.status is RunStatus.DONE
            assert [row.status for row in store.stages(run.id)] == [StageStatus.DONE] * STAGES_EACH
            assert len(store.artifacts(run.id)) == len(store.metrics(run.id)) == STAGES_EACH
        _check_shared_run(store)
    _check_file(store_url)


def _check_shared_run(store: Store) -> None:
    """One attempt is running, the others were interrupted, and the same content is one row."""
    attempts = [row for row in store.stages(SHARED_RUN_ID) if row.stage == "contested"]
    assert [row.attempt for row in attempts] == list(range(1, PROCESSES * STAGES_EACH + 1))
    assert Counter(row.status for row in attempts) == {
        StageStatus.RUNNING: 1,
        StageStatus.INTERRUPTED: PROCESSES * STAGES_EACH - 1,
    }
    assert attempts[-1].status is StageStatus.RUNNING
    assert len(store.artifacts(SHARED_RUN_ID)) == 1
    assert len(store.metrics(SHARED_RUN_ID)) == PROCESSES


def test_kill_9_tears_nothing(store_url: str) -> None:
    """A writer killed at any moment leaves all that it reported, nothing torn, and a way on."""
    reported: list[str] = []
    for reports_before_kill in (1, 7, 20):
        process = _other_process("write", store_url)
        reported += [_line(process) for _ in range(reports_before_kill)]
        reported += _killed(process)
        with open_store(store_url) as store:
            stages = {str(row.id): row for row in store.stages(SHARED_RUN_ID)}
            assert all(stages[number].status is StageStatus.DONE for number in reported)
            left = [row for row in stages.values() if row.status is StageStatus.RUNNING]
            assert len(left) <= 1
            kept = {row.path for row in store.artifacts(SHARED_RUN_ID)}
            assert {f"{stages[number].stage}.jsonl" for number in reported} <= kept
        _check_file(store_url)
    with open_store(store_url) as store:
        for row in left:
            again = store.start_stage(StageRunCreate(run_id=SHARED_RUN_ID, stage=row.stage))
            assert again.attempt == row.attempt + 1
        store.end_run(SHARED_RUN_ID, RunStatus.INTERRUPTED)
        states = {row.status for row in store.stages(SHARED_RUN_ID)}
        assert StageStatus.RUNNING not in states


def test_kill_9_inside_a_transaction_undoes_it(store_url: str) -> None:
    """What was not committed is gone, and the lock with it: the next writer gets through."""
    with open_store(store_url) as store:
        run = store.start_run(_run("whole", id=SHARED_RUN_ID))
        process = _other_process("hold", store_url)
        assert _line(process) == "holding"
        assert store.find_run(run.id) == run  # readers do not wait
        _killed(process)
        assert store.end_run(run.id, RunStatus.DONE).name == "whole"
    _check_file(store_url)


def test_a_store_may_be_carried_over_a_fork(store_url: str) -> None:
    """Children do not share the parent's connections: all of them write, none is lost."""
    process = _other_process("fork", store_url)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    with open_store(store_url) as store:
        assert len(store.runs()) == 1 + 3 * 5 + 5
    _check_file(store_url)


if __name__ == "__main__":
    modes: dict[str, Callable[..., None]] = {
        "work": _work,
        "write": _write_until_killed,
        "hold": _hold_transaction,
        "fork": _fork,
    }
    modes[sys.argv[1]](*sys.argv[2:])
else:
    from tests.contract.test_store_databases import postgres_url, store_url  # noqa: F401
