"""A gate as a person meets it: the Prefect UI in Chromium, from the trigger to the approval.

Screenshots go to the folder that STAGEGATE_SCREENSHOTS names, or to the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.provenance.manifest import verify
from tests.flows.gated import GatedStack
from tests.flows.stack_home import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAME = "browsed"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1200})
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def shot(page: Any, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("STAGEGATE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"))


def open_form(page: Any, stack: GatedStack) -> Any:
    """The gate's form, opened by the menu of the waiting flow run."""
    run = stack.flow_run(NAME)
    page.goto(f"{stack.ui}/v2/runs/flow-run/{run.id}")
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Gate pilot-").first.wait_for()
    return dialog


def choose(page: Any, dialog: Any, label: str, option: str) -> None:
    dialog.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_trigger_read_iterate_and_approve_in_the_browser(
    gated_stack: GatedStack, page: Any, tmp_path: Path
) -> None:
    """Triggered from its form, a run waits, iterates with a changed parameter, is approved, completes."""
    config = gated_stack.config(NAME, gates={"approvers": ["anna", "ben"]})

    page.goto(f"{gated_stack.ui}/v2/deployments")
    page.locator("a[href*='deployment/']", has_text="pilot").first.wait_for()
    page.get_by_role("link", name="pilot", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_label("config").fill(str(config))
    page.get_by_label("run_name").fill(NAME)
    shot(page, "1-trigger", tmp_path)
    page.get_by_role("button", name="Submit").click()
    until(lambda: gated_stack.flow_run(NAME) is not None, "the flow run exists")

    gated_stack.waits_at(NAME, "pilot-1")
    dialog = open_form(page, gated_stack)
    shot(page, "2-form-top", tmp_path)
    text = dialog.inner_text()
    for expected in ("Machine checks", "Quality control", "What is judged", "Left of the budget", "runaway"):
        assert expected in text
    dialog.get_by_label("decision").scroll_into_view_if_needed()
    shot(page, "3-form-fields", tmp_path)
    choose(page, dialog, "decision", "iterate")
    dialog.get_by_label("reason").fill("see what more room for the answers does")
    choose(page, dialog, "approver", "anna")
    dialog.get_by_label("Response max new tokens").fill("60")
    shot(page, "4-form-filled", tmp_path)
    dialog.get_by_role("button", name="Resume").click()

    gated_stack.waits_at(NAME, "pilot-2")
    folder = gated_stack.folder / "runs" / NAME
    second = json.loads((folder / "iterations" / "2" / "run.json").read_text())["config"]
    assert second["responses"]["max_new_tokens"] == 60
    assert second["run"]["seed"] == 8
    dialog = open_form(page, gated_stack)
    dialog.get_by_text("Iterations side by side").scroll_into_view_if_needed()
    shot(page, "5-second-form", tmp_path)
    choose(page, dialog, "decision", "approve")
    choose(page, dialog, "approver", "ben")
    dialog.get_by_role("button", name="Resume").click()

    gated_stack.ends_in(NAME, "Approved")
    page.goto(f"{gated_stack.ui}/v2/runs/flow-run/{gated_stack.flow_run(NAME).id}")
    page.get_by_text("Approved", exact=True).first.wait_for()
    shot(page, "6-approved", tmp_path)
    kinds = [link.kind for link in verify(folder)]
    assert kinds.count("gate") == 2
    with gated_stack.store() as store:
        run = store.find_run(NAME)
        decisions = [store.decision(gate.id) for gate in store.gates(run.id)]
        assert [(str(d.decision), d.approver, d.via) for d in decisions] == [
            ("iterate", "anna", "ui"),
            ("approve", "ben", "ui"),
        ]
        assert decisions[0].changes == {"response_max_new_tokens": 60}
        assert run.status == "done"
