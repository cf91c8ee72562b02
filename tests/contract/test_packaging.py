"""The generic top-level names are ours, and the command line starts without the heavy libraries."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PACKAGES = [name for name in DECLARED if (ROOT / name).is_dir()]
HEAVY = ("torch", "transformers", "tokenizers", "peft", "vllm", "sklearn", "plotly", "streamlit")


def _modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter, outside the checkout, holds after the code."""
    script = f"{code}\nimport sys, json\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_resolves_inside_the_checkout(package: str) -> None:
    """`import core` and its like give this checkout's code, not a namesake's from site-packages."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} has no __init__.py"
    assert Path(spec.origin).resolve() == ROOT / package / "__init__.py"


def test_every_package_folder_is_declared() -> None:
    """A folder at the top with an __init__.py is in the wheel's list, else it would not install."""
    present = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert present <= set(DECLARED)
    assert {"core", "tasks", "flows", "cli"} <= present


def test_the_distribution_cannot_be_uploaded_by_accident() -> None:
    """Names this generic must never reach a public index."""
    assert "Private :: Do Not Upload" in PYPROJECT["project"]["classifiers"]


def test_core_alone_imports_no_heavy_library() -> None:
    """Config and settings, which every command needs, cost no import of torch and its like."""
    assert _modules_after("import core.config, core.settings").isdisjoint(HEAVY)


def test_help_imports_no_heavy_library() -> None:
    """`stagegate --help` answers without torch, transformers, plotly or scikit-learn."""
    code = (
        "import sys\nsys.argv = ['stagegate', '--help']\n"
        "from cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert _modules_after(code).isdisjoint(HEAVY)


def test_flows_import_no_heavy_library() -> None:
    """Importing every flow, as a deployment does, needs none of the heavy libraries."""
    flows = sorted(p.stem for p in (ROOT / "flows").glob("*.py") if p.stem != "__init__")
    assert flows, "flows/ holds no flow"
    code = "\n".join(f"import flows.{name}" for name in flows)
    assert _modules_after(code).isdisjoint(HEAVY)
