"""`stagegate qc`: exit codes, clean JSON, broken files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from cli.qc import qc


def _run(*args: str) -> Result:
    app = typer.Typer()
    app.command()(qc)
    return CliRunner().invoke(app, list(args))


def _file(tmp_path: Path, count: int, *more: str) -> str:
    lines = [
        json.dumps(
            {
                "instruction": f"Tell me about the river number {i} of the {i * 7} valleys.",
                "response": f"River {i} is long and old.",
                "finish_reason": "eos",
            }
        )
        for i in range(count)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*lines, *more]))
    return str(path)


def test_pass_exits_0_and_shows_the_table(tmp_path: Path) -> None:
    """A clean file passes, and what was not measured is named."""
    result = _run(_file(tmp_path, 160))
    assert result.exit_code == 0, result.output
    assert "runaway" in result.output
    assert "not measured" in result.output


@pytest.mark.parametrize("args", [("--requested", "500"), ()])
def test_fail_and_insufficient_exit_3(tmp_path: Path, args: tuple[str, ...]) -> None:
    """Fewer pairs than requested, and too few to tell, both refuse."""
    assert _run(_file(tmp_path, 20), *args).exit_code == 3


def test_json_is_alone_on_stdout(tmp_path: Path) -> None:
    """--json prints one JSON document with verdict, metrics and skipped lines."""
    result = _run(_file(tmp_path, 160, "broken"), "--json", "--skip-broken")
    summary = json.loads(result.stdout)
    assert summary["verdict"] == "pass"
    assert summary["skipped_lines"][0]["line"] == 161


def test_broken_lines_exit_2_with_numbers(tmp_path: Path) -> None:
    """A broken line stops the command with its number on stderr and nothing on stdout."""
    result = _run(_file(tmp_path, 3, "broken"), "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 4" in result.stderr


def test_missing_file_exits_2(tmp_path: Path) -> None:
    """A file that is not there is the user's mistake and shows no traceback."""
    result = _run(str(tmp_path / "none.jsonl"))
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_config_limits_apply_and_show(tmp_path: Path) -> None:
    """Limits of a run config decide, and the table says which differ from the defaults."""
    config = tmp_path / "config.yaml"
    config.write_text("qc:\n  max_truncation_ratio: 0.5\n")
    result = _run(_file(tmp_path, 60), "--config", str(config))
    assert result.exit_code == 0, result.output
    assert "max_truncation_ratio" in result.output
    config.write_text("qc:\n  max_truncatoin_ratio: 0.5\n")
    assert _run(_file(tmp_path, 60), "--config", str(config)).exit_code == 2


def test_out_writes_both_files(tmp_path: Path) -> None:
    """--out leaves the summary and the page in the named directory."""
    _run(_file(tmp_path, 60), "--out", str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "qc_summary.json",
        "qc_report.html",
    }


def test_help_imports_nothing_heavy() -> None:
    """Importing the command loads neither torch nor sklearn nor plotly."""
    code = "import sys, cli.qc; print({'torch', 'sklearn', 'plotly', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
