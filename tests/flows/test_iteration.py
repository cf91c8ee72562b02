"""The whole pilot on the tiny model, against a real Prefect server and a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.config import load_config
from core.errors import IntegrityError, RunMismatchError
from core.provenance.manifest import verify

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "configs" / "smoke.yaml"


@pytest.fixture(scope="module")
def finished(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One undisturbed smoke run."""
    from flows.iteration import pilot_iteration

    folder = tmp_path_factory.mktemp("undisturbed")
    return pilot_iteration(load_config(SMOKE, [f"run.output_dir={folder}"]))


def accepted(folder: str | Path) -> list[tuple[str, str, str]]:
    lines = (Path(folder) / "dataset" / "accepted.jsonl").read_text().splitlines()
    return [(r["id"], r["instruction"], r["response"]) for r in map(json.loads, lines)]


def test_pilot_ends_in_a_judged_and_sealed_dataset(finished: dict[str, Any]) -> None:
    """The run leaves at least the pairs that were asked for, a verdict, and a chain that verifies."""
    wanted = load_config(SMOKE).target.count
    assert len(accepted(finished["folder"])) >= wanted
    assert finished["summary"]["verdict"] in ("pass", "fail", "insufficient")
    assert finished["summary"]["metrics"]["kept_pairs"]["value"] >= wanted
    kinds = [link.kind for link in verify(Path(finished["folder"]))]
    assert kinds == ["model", "certification", "generation", "dataset", "qc", "run"]


def test_store_and_files_tell_the_same_story(finished: dict[str, Any]) -> None:
    """Run, stages, artifacts and metrics are in the store, with the hashes that are on disk."""
    from core.provenance.manifest import read_manifest
    from tasks.bookkeeping import the_store

    run = the_store().find_run_in(finished["folder"])
    assert run is not None and run.status == "done"
    artifacts = {a.kind: a for a in the_store().artifacts(run.id)}
    for kind in ("model", "certification", "generation", "dataset", "qc"):
        on_disk = read_manifest(Path(finished["folder"]) / kind)
        assert artifacts[kind].sha256 == on_disk["content_sha256"]
    assert {s.stage for s in the_store().stages(run.id) if s.status == "done"} >= set(artifacts) - {"run"}
    metrics = {m.name: m.verdict for m in the_store().metrics(run.id)}
    assert metrics == {n: m["verdict"] for n, m in finished["summary"]["metrics"].items()}


def test_prefect_shows_progress_and_the_qc_table(finished: dict[str, Any]) -> None:
    """The server holds a progress artifact at 100 %, the verdict as markdown and the metric table."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = {a.key: a for a in client.read_artifacts()}
    assert float(found["accepted-pairs"].data) == 100.0
    assert finished["summary"]["verdict"] in found["qc-verdict"].data
    rows = json.loads(found["qc-table"].data)
    assert {row["metric"] for row in rows} == set(finished["summary"]["metrics"])


def test_a_finished_run_is_shown_again_without_work(finished: dict[str, Any]) -> None:
    """Running the same config on the finished folder verifies it and changes nothing."""
    from flows.iteration import pilot_iteration

    before = (Path(finished["folder"]) / "manifest.json").read_bytes()
    again = pilot_iteration(load_config(SMOKE, [f"run.output_dir={finished['folder']}"]))
    assert again == finished
    assert (Path(finished["folder"]) / "manifest.json").read_bytes() == before


def test_another_seed_on_the_same_folder_is_refused(finished: dict[str, Any]) -> None:
    """A changed config does not mix into an old run; the message names the key."""
    from flows.iteration import pilot_iteration

    with pytest.raises(RunMismatchError, match=r"run\.seed: 7 -> 8"):
        pilot_iteration(load_config(SMOKE, [f"run.output_dir={finished['folder']}", "run.seed=8"]))


def test_a_tampered_dataset_does_not_verify(finished: dict[str, Any], tmp_path: Path) -> None:
    """Editing one accepted pair is found by name."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished["folder"], copy)
    path = copy / "dataset" / "accepted.jsonl"
    path.write_text(path.read_text().replace('"response": "', '"response": "x', 1))
    with pytest.raises(IntegrityError, match=r"accepted\.jsonl was changed"):
        verify(copy)


def test_killed_at_any_time_and_resumed_it_ends_the_same(
    finished: dict[str, Any], prefect_server: None, tmp_path: Path
) -> None:
    """`kill -9` three times during the run, then resume: the same accepted ids and texts."""
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "cli", "pilot", str(SMOKE), "--set", f"run.output_dir={folder}"]
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PYTHONPATH": str(ROOT)}
    # At the first certificate, in the first responses, and later in the generation.
    marks = (
        lambda: (folder / "model" / "manifest.json").exists(),
        lambda: _commits(folder) >= 1,
        lambda: _commits(folder) >= 2,
    )
    for mark in marks:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while process.poll() is None and not mark() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode in (0, 3), done.stderr
    assert accepted(folder) == accepted(finished["folder"])


def _commits(folder: Path) -> int:
    journal = folder / "generation" / "candidates.jsonl"
    return journal.read_text(errors="ignore").count('"kind": "commit"') if journal.exists() else 0


def test_every_flow_entrypoint_loads_from_the_checkout() -> None:
    """Module entrypoints import for real, not through Prefect's placeholder."""
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint("flows.iteration.pilot_iteration", use_placeholder_flow=False)
    assert flow.name == "pilot-iteration"
    assert "config" in flow.parameters.properties
