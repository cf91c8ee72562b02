"""A running stack of this checkout and gated runs on it, driven as people drive them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.flows.stack_home import free_port, until

ROOT = Path(__file__).resolve().parents[2]
SMOKE = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text())
# Limits under which the tiny model's handful of candidates can pass; the sheet shows each as changed.
LOOSE = {"min_candidates": 10, "max_runaway_ratio": 0.3, "max_truncation_ratio": 0.3}
ITERATION_S = 240.0


@dataclass
class GatedStack:
    """Server, workers and store in a temporary home; the flows are this checkout's."""

    folder: Path
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "STAGEGATE_", "OPENAI_"))
        }
        return {**kept, "STAGEGATE_HOME": str(self.home), "CUDA_VISIBLE_DEVICES": "", **self.extra}

    def run(self, *arguments: str, code: int | None = 0, timeout: float = 240) -> str:
        """Output of one `stagegate` command, which has to end with that code and without a traceback."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("stagegate")), *arguments],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{said}"
        assert "Traceback" not in said
        return said

    def up(self) -> None:
        self.run("up", "--port", str(self.port))

    def config(self, name: str, **sections: dict[str, Any]) -> Path:
        """A config file like configs/smoke.yaml, with other values in some sections."""
        values = {**SMOKE, "qc": LOOSE}
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes}
        values["run"] = {**values["run"], "output_dir": str(self.folder / "runs" / name)}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def start(self, name: str, **sections: dict[str, Any]) -> Path:
        """Start a gated run by `stagegate run`; its folder."""
        self.run("run", str(self.config(name, **sections)), "--name", name, code=4)
        return self.folder / "runs" / name

    def gates(self, name: str) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = json.loads(self.run("gates", "--all", "--json"))
        return [row for row in rows if row["run"] == name]

    def waits_at(self, name: str, key: str) -> dict[str, str]:
        """The gate's row, once it waits for a person and its form can be filled."""
        found: list[dict[str, str]] = []

        def waiting() -> bool:
            found[:] = [g for g in self.gates(name) if g["gate"] == key and g["status"] == "waiting"]
            return bool(found) and self.state(name).name == "Suspended"

        until(waiting, f"{name} waits at {key}", ITERATION_S)
        return found[0]

    def flow_run(self, name: str) -> Any:
        """The newest flow run of the orchestrator of a run."""
        with self.client() as client:
            runs = client.read_flow_runs()
        mine = [r for r in runs if r.name in (f"pilot {name}", f"iterate {name}")]
        return max(mine, key=lambda r: r.created) if mine else None

    def state(self, name: str) -> Any:
        found = self.flow_run(name)
        assert found is not None and found.state is not None
        return found.state

    def ends_in(self, name: str, *states: str) -> Any:
        until(lambda: self.state(name).name in states, f"{name} ends in {states}", ITERATION_S)
        return self.state(name)

    def client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(f"{self.ui}/api")

    def store(self) -> Any:
        from core.store import open_store

        return open_store(f"sqlite:///{self.home / 'store.db'}")

    def processes(self) -> list[Any]:
        """Every process of this stack: server, workers, flow runs."""
        from deployments.processes import marked
        from deployments.record import Stack

        record = Stack.model_validate_json((self.home / "stack.json").read_text())
        return marked(record.mark)
