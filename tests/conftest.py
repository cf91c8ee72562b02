"""What holds for every test: where state goes, which mark a folder gives, and a docstring each."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
GROUPS = ("unit", "contract", "flows", "model")
SCRATCH = Path(tempfile.mkdtemp(prefix="stagegate-tests-"))

# Prefect and the settings read these when first imported, hence here and not in a fixture. No test
# may reach a person's own server, store or results; the cache of converted models is shared, since
# it is keyed by content and costs a minute to make.
os.environ.update(
    PREFECT_HOME=str(SCRATCH / "prefect"),
    PREFECT_LOCAL_STORAGE_PATH=str(SCRATCH / "prefect-results"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    STAGEGATE_HOME=str(SCRATCH / "stagegate"),
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "STAGEGATE_DATABASE_URL"):
    os.environ.pop(name, None)


# Machines differ in speed; a test that hangs is pytest-timeout's business.
settings.register_profile("stagegate", deadline=None)
settings.load_profile("stagegate")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by folder and refuses a test that does not say what it promises."""
    silent = []
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in GROUPS:
            item.add_marker(getattr(pytest.mark, folder))
        if isinstance(item, pytest.Function) and not (item.function.__doc__ or "").strip():
            silent.append(item.nodeid)
    if silent:
        raise pytest.UsageError(
            "these tests do not say in a docstring what they promise:\n  " + "\n  ".join(silent)
        )


def pytest_unconfigure() -> None:
    """Leaves nothing behind."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
