"""Real Prefect servers for all flow tests: one in this process, and a whole stack with workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.gated import GatedStack


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def gated_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedStack]:
    """Server and workers of this checkout, up for all gated tests."""
    stack = GatedStack(tmp_path_factory.mktemp("gated"))
    stack.up()
    yield stack
    stack.run("down")
