"""The gated pilot: iterate until a gate says approve or reject.

    (iteration -> machine checks -> reviews -> gate)+ -> seal

The orchestrator runs on the `cpu` pool, each iteration as a child on the `gpu` pool; both processes have
ended before anybody is asked, and the flow goes on from the store when somebody has answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from core.config import RunConfig
from core.errors import StagegateError, TransientError
from core.provenance.manifest import Artifact, read_artifact
from core.store import RunStatus
from flows.gates import is_alive
from flows.notices import link_to
from flows.steps import Passed, one_iteration
from tasks.bookkeeping import the_store
from tasks.gated_run import GatedRun, resolve_config, run_name_for
from tasks.reviewing import reviewers_for

Policy = Literal["as configured", "human", "reviewer", "passing"]
"""Who opens a gate, and the word that leaves it to the config."""


def named_after_run() -> str:
    """`pilot demo-1a2b3c4d`: the flow run's name says which run it is of."""
    return f"{flow_run.flow_name} {run_name_for(flow_run.parameters, str(flow_run.id))}"


@flow(name="pilot", flow_run_name=named_after_run)
def pilot(
    config: str = "configs/demo.yaml",
    run_name: Annotated[str, Field(max_length=56)] = "",
    policy: Policy = "as configured",
    seed: Annotated[int, Field(ge=0)] | None = None,
    max_iterations: Annotated[int, Field(ge=1, le=50)] | None = None,
    overrides: list[str] | None = None,
) -> State[Any]:
    """A pilot behind its gate: write, criticise, filter and judge a dataset, then ask if it is good enough.

    Args:
        config: Run config on the worker's machine, relative to the checkout.
        run_name: Name of the run and of its folder; made from the config's name where empty. The name of a
            run that has stopped takes it up again.
        policy: Who opens the gate.
        seed: Seed of the first iteration; empty leaves it to the config. Later iterations count up from it.
        max_iterations: Most iterations; empty leaves it to the config.
        overrides: More values of the config, each as section.key=value.
    """
    asked = parameter_overrides(policy, seed, max_iterations)
    settings = resolve_config(config, [*(overrides or []), *asked], run_name, str(flow_run.id))
    if (elsewhere := asked_elsewhere(settings)) is not None:
        return elsewhere
    with gated(settings) as run:
        number = 1
        passed = [one_iteration(run, number)]
        while passed[-1][0].decision == "iterate":
            number += 1
            passed.append(one_iteration(run, number))
        return finish(run, passed)


def asked_elsewhere(config: RunConfig) -> State[Any] | None:
    """The end of a flow run that has nothing to do: another, living one waits at a gate of this run."""
    run = the_store().find_run_in(str(config.run.output_dir.absolute()))
    for gate in the_store().gates(run.id, undecided=True) if run is not None else []:
        owner = gate.flow_run_id
        if owner not in (None, str(flow_run.id)) and is_alive(str(owner)):
            text = (
                f"gate {gate.key} of {config.run.name} is {gate.status} in flow run {owner}; nothing was "
                f"started, nothing was spent. Decide there: {link_to(str(owner))}"
            )
            return Completed(name="Waiting", message=text)
    return None


def parameter_overrides(policy: Policy, seed: int | None, max_iterations: int | None) -> list[str]:
    """Flow parameters as config overrides; what is empty stays as the config has it."""
    chosen = None if policy == "as configured" else policy
    given = {"gates.policy": chosen, "run.seed": seed, "gates.max_iterations": max_iterations}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


@contextmanager
def gated(config: RunConfig) -> Iterator[GatedRun]:
    """The run, open; a failure inside is recorded, and a suspension (no Exception) leaves it as it is.

    Raises:
        ConfigError: no reviewer can be built from the config; found before anything is spent.
    """
    reviewers_for(config.reviewer, "pilot")
    with GatedRun.open(config, str(flow_run.id)) as run:
        try:
            yield run
        except StagegateError as error:
            # Only what ends the run for sure: after a lost connection its child may still be computing.
            passing = isinstance(error, TransientError)
            if not passing and run.store.run(run.run_id).status is RunStatus.RUNNING:
                run.store.end_run(run.run_id, RunStatus.FAILED)
            raise


def finish(run: GatedRun, passed: list[Passed]) -> State[Any]:
    """Seal a run whose last gate said approve or reject; the flow run's state says which."""
    decision = passed[-1][0]
    approved = decision.decision == "approve"
    if approved:  # what everything behind this gate will ask the store, asked once here
        run.store.approval_of("pilot", decision.artifact_sha256)
    gates: list[Artifact] = [record for _, record in passed]
    meta = {"decision": str(decision.decision), "iterations": len(passed)}
    run.seal(gates, RunStatus.DONE if approved else RunStatus.REJECTED, meta)
    text = (
        f"{run.name}: iteration {len(passed)} was {'approved' if approved else 'rejected'} by "
        f"{decision.approver}; check the whole chain with `stagegate verify {run.folder}`"
    )
    get_run_logger().info(text)
    data = {
        "run": run.name,
        "folder": str(run.folder),
        "decision": str(decision.decision),
        "iterations": len(passed),
        "dataset_sha256": decision.artifact_sha256,
        "gate_sha256": read_artifact(gates[-1].path).manifest_sha256,
    }
    return Completed(name="Approved" if approved else "Rejected", message=text, data=data)
