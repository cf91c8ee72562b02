"""The JSON summary and the HTML page, above all that generated text stays text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import StorageError
from core.qc.funnel import FunnelCounts
from core.qc.judge import judge
from core.qc.report import write_report
from core.qc.rows import QCRow
from core.qc.thresholds import QCThresholds
from core.qc.verdicts import QCReport

EVIL = "</script><script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">"


def _report() -> QCReport:
    rows = [
        QCRow(
            id=f"r{i}{EVIL if i == 0 else ''}",
            instruction=f"{EVIL} {i}",
            response=f"{EVIL} says that {i} is the",
            finish_reason=f"stop:{EVIL}",
            response_tokens=i,
            kept=i % 2 == 0,
            score=float("nan") if i == 0 else i / 10,
        )
        for i in range(30)
    ]
    funnel = FunnelCounts(instruction_candidates=90, instruction_rejections={EVIL: 5})
    return judge(rows, thresholds=QCThresholds(), funnel=funnel)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a report in which every text that a model could write is hostile."""
    extra = {"margin_nats": 1.0, EVIL: EVIL, "skipped_lines": [{"line": 3, "reason": EVIL}]}
    return write_report(_report(), tmp_path_factory.mktemp("report"), title=EVIL, extra=extra)


def test_summary_is_complete_and_stable(written: tuple[Path, Path], tmp_path: Path) -> None:
    """The summary is strict JSON, the same bytes each time, with every metric and its counts."""
    text = written[0].read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert summary["metrics"]["runaway"]["denominator"] == 30
    assert summary["extra"]["margin_nats"] == 1.0
    assert summary["thresholds"]["max_runaway_ratio"] == 0.05
    again, _ = write_report(_report(), tmp_path, title=EVIL, extra=summary["extra"])
    assert again.read_text(encoding="utf-8") == text


def test_generated_text_makes_no_element(written: tuple[Path, Path]) -> None:
    """The page has its own three scripts, no image and no handler, whatever the texts say."""
    parser = _Tags()
    parser.feed(written[1].read_text(encoding="utf-8"))
    scripts = [attrs for tag, attrs in parser.tags if tag == "script"]
    assert len(scripts) == 3
    assert all("src" not in attrs for attrs in scripts)
    assert not [tag for tag, _ in parser.tags if tag in ("img", "iframe", "link", "object")]
    assert not [a for _, attrs in parser.tags for a in attrs if a.startswith("on")]


def test_page_forbids_the_network(written: tuple[Path, Path]) -> None:
    """The content policy allows no connection, and scripts only by nonce."""
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', written[1].read_text())
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]
    assert "script-src 'nonce-" in policy[1]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium (apt-get install chromium)")
def test_browser_draws_the_plots_and_runs_no_generated_script(
    written: tuple[Path, Path], tmp_path: Path
) -> None:
    """In a real browser all plots are drawn and the hostile texts change nothing."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path}", "--dump-dom", written[1].as_uri(),
    ]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>PWNED" not in page
    assert page.count('class="main-svg"') >= 5
    assert "margin 1" in page


def test_sample_marks_the_finding() -> None:
    """The words that a detector saw are marked in the sample."""
    from core.qc.report import render_html

    rows = [QCRow("a", "Say hi to the old man.", "Hi.\nInstruction: Say bye.", finish_reason="eos")]
    page = render_html(judge(rows, thresholds=QCThresholds()), title="t", extra={})
    assert re.search(r"<mark>\s*Instruction:</mark>", page)


def test_report_of_nothing_is_written(tmp_path: Path) -> None:
    """No candidates still give a page that says insufficient."""
    _, page = write_report(judge([], thresholds=QCThresholds()), tmp_path, title="none", extra={})
    assert "insufficient" in page.read_text(encoding="utf-8")


def test_half_surrogates_are_written(tmp_path: Path) -> None:
    """A text that is no valid Unicode is shown with a mark in its place, not a crash."""
    row = QCRow("a", "Say hi to \ud800 them.", "\udfff", kept=False)
    summary, _ = write_report(judge([row], thresholds=QCThresholds()), tmp_path, title="x", extra={})
    assert json.loads(summary.read_text(encoding="utf-8"))["candidates"] == 1


def test_unwritable_place_is_bad_input(tmp_path: Path) -> None:
    """A directory that cannot be made is reported as storage trouble."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        write_report(judge([], thresholds=QCThresholds()), tmp_path / "file", title="t", extra={})


def test_report_value_is_frozen() -> None:
    """Nobody turns a fail into a pass after the fact."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        judge([], thresholds=QCThresholds()).verdict = "pass"  # type: ignore[misc]
