"""`make test`: all test groups, cheap ones first, each run whatever the others did.

Prints pytest's own output group by group, then one table, then what was skipped and how to have it.
Exit 1 when a group failed. Arguments go on to pytest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
NAMED_GROUPS = {
    "unit and contract": ("unit", "contract"),
    "flows": ("flows",),
    "model": ("model",),
}
NOT_RUN = (
    "gpu and live tests are not part of this run: on a CUDA machine "
    "`.venv/bin/python -m pytest -m gpu`; with keys of your own, spending money, "
    "`.venv/bin/python -m pytest -m live`"
)
PYTEST_FOUND_NOTHING = 5


@dataclass
class Outcome:
    """What one group did. `skipped` counts tests by reason."""

    group: str
    seconds: float
    exit_code: int
    counts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        return self.exit_code not in (0, PYTEST_FOUND_NOTHING)


def groups() -> dict[str, list[str]]:
    """Folders by group; a folder with tests that no group names gets one, so none is forgotten."""
    present = {p.name for p in (ROOT / "tests").iterdir() if any(p.rglob("test_*.py"))}
    named = {name for folders in NAMED_GROUPS.values() for name in folders}
    chosen = {
        group: [f"tests/{folder}" for folder in folders if folder in present]
        for group, folders in NAMED_GROUPS.items()
    }
    chosen["other"] = [f"tests/{folder}" for folder in sorted(present - named)]
    return {group: folders for group, folders in chosen.items() if folders}


def run_group(group: str, folders: list[str], extra: list[str]) -> Outcome:
    """Runs one pytest over the folders and reads its counts."""
    print(f"\n=== {group} ({', '.join(folders)})", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *folders, *extra]
        started = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        outcome = Outcome(group, time.monotonic() - started, code)
        if report.is_file():
            read_report(report, outcome)
    return outcome


def read_report(report: Path, outcome: Outcome) -> None:
    """Adds the counts of a junit file to the outcome."""
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag: child for child in case}
        if "failure" in kinds or "error" in kinds:
            outcome.counts["failed"] += 1
        elif "skipped" in kinds:
            outcome.counts["skipped"] += 1
            reason = kinds["skipped"].get("message", "no reason given")
            outcome.skipped[re.sub(r"^Skipped: ", "", reason)] += 1
        else:
            outcome.counts["passed"] += 1


def summary(outcomes: list[Outcome]) -> str:
    """The closing report; its last line is `N passed, N failed, N skipped`."""
    lines = ["", "=== make test"]
    for each in outcomes:
        state = "FAILED" if each.failed else "ok"
        counts = ", ".join(f"{each.counts[name]} {name}" for name in ("passed", "failed", "skipped"))
        lines.append(f"{each.group:<20} {state:<7} {each.seconds:7.1f} s   {counts}")
    reasons = sum((each.skipped for each in outcomes), Counter[str]())
    lines += [f"skipped {count}: {reason}" for reason, count in reasons.most_common()]
    lines.append(NOT_RUN)
    total = sum((each.counts for each in outcomes), Counter[str]())
    lines.append(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return "\n".join(lines)


def main(extra: list[str]) -> int:
    """Runs every group. 0 when all passed, 1 when one did not."""
    outcomes = [run_group(group, folders, extra) for group, folders in groups().items()]
    print(summary(outcomes), flush=True)
    return 1 if not outcomes or any(each.failed for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
