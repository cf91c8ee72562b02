"""One step of a gated run, for a schedule: each firing does what comes next, and no more.

Nothing to do, because somebody is asked: it says so and spends nothing. Passed, rejected, at the last
iteration or without budget: it says so and pauses its own schedule.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from pydantic import Field

from core.errors import BudgetError
from core.history import pilot_decision
from flows.pilot import Policy, asked_elsewhere, finish, gated, named_after_run, parameter_overrides
from flows.steps import Passed, one_iteration
from tasks.gated_run import GatedRun, resolve_config

NEXT_FIRING = "NextFiring"
DEFAULTS = {"config": "configs/demo.yaml", "run_name": "nightly"}


@flow(name="iterate", flow_run_name=named_after_run)
def iterate(
    config: str = DEFAULTS["config"],
    run_name: Annotated[str, Field(min_length=1, max_length=56)] = DEFAULTS["run_name"],
    policy: Policy = "as configured",
    seed: Annotated[int, Field(ge=0)] | None = None,
    max_iterations: Annotated[int, Field(ge=1, le=50)] | None = None,
    overrides: list[str] | None = None,
) -> State[Any]:
    """The next iteration of a run, if it is its turn; made for a schedule.

    Args:
        config: Run config on the worker's machine, relative to the checkout.
        run_name: Name of the run that every firing goes on with.
        policy: Who opens the gate.
        seed: Seed of the first iteration; empty leaves it to the config. Later iterations count up from it.
        max_iterations: Most iterations; empty leaves it to the config.
        overrides: More values of the config, each as section.key=value.
    """
    asked = parameter_overrides(policy, seed, max_iterations)
    settings = resolve_config(config, [*(overrides or []), *asked], run_name, str(flow_run.id))
    if (elsewhere := asked_elsewhere(settings)) is not None:
        return elsewhere
    try:
        with gated(settings) as run:
            state = _step(run)
    except BudgetError as error:
        stop_schedule(config, run_name, str(error))
        raise
    if state.name != NEXT_FIRING:
        stop_schedule(config, run_name, str(state.message))
    return state


def _step(run: GatedRun) -> State[Any]:
    number = _next_number(run)
    # Those before it answer from the store; they are asked again because their artifacts may have changed.
    passed: list[Passed] = [one_iteration(run, each) for each in range(1, number + 1)]
    decision = passed[-1][0]
    if decision.decision == "iterate":
        text = f"iteration {number + 1} of {run.name} comes with the next firing"
        get_run_logger().info(text)
        return Completed(name=NEXT_FIRING, message=text)
    return finish(run, passed)


def _next_number(run: GatedRun) -> int:
    """The first iteration that is not decided as `iterate`."""
    number = 1
    while (decision := pilot_decision(run.store, run.run_id, number)) and decision.decision == "iterate":
        number += 1
    return number


def stop_schedule(config: str, run_name: str, why: str) -> None:
    """Pause every schedule of this deployment that goes on with this run."""
    if not deployment.id:
        return
    with get_client(sync_client=True) as client:
        mine = client.read_deployment(UUID(str(deployment.id)))
        for schedule in mine.schedules:
            values = {**DEFAULTS, **mine.parameters, **(schedule.parameters or {})}
            if schedule.active and (values["config"], values["run_name"]) == (config, run_name):
                client.update_deployment_schedule(mine.id, schedule.id, active=False)
                get_run_logger().info(
                    "schedule %s of iterate is paused: %s", schedule.slug or schedule.id, why
                )
