"""One iteration of a gated run: computed by a child on the `gpu` pool, judged at its gate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import INPUTS
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from core.config import RunConfig
from core.errors import BadInputError, StagegateError
from core.history import review_before
from core.iterations import movements
from core.provenance.manifest import MANIFEST, Artifact, read_artifact
from core.store import AdviceEffect, AdviceOutcomeCreate, GateDecisionPublic
from flows.gates import pass_gate
from tasks.gated_run import GatedRun
from tasks.questions import pilot_question

ITERATION_DEPLOYMENT = "pilot-iteration/pilot-iteration"
POLL_S = 2
MOST_ATTEMPTS = 20

Passed = tuple[GateDecisionPublic, Artifact]


def one_iteration(run: GatedRun, number: int) -> Passed:
    """Compute an iteration unless it is there, then pass its gate; what was decided, and its record.

    Raises:
        BudgetError: what is left does not cover it; nothing was started.
        StagegateError: the child failed; says in which flow run and why.
    """
    config = run.iteration_config(number)
    if not (run.iteration_folder(number) / MANIFEST).is_file():
        run.require_budget(number)
    run_iteration(config, run.run_id, number)
    record_advice(run, number)
    question = pilot_question(run, number, config)
    iteration = run.store.iterations(run.run_id)[number - 1]
    return pass_gate(run, question, config, [read_artifact(run.iteration_folder(number))], iteration.id)


@task(name="iteration", task_run_name="iteration-{number}", persist_result=True, cache_policy=INPUTS)
def run_iteration(config: RunConfig, run_id: str, number: int) -> str:
    """The folder of the iteration, computed by a flow run of its own; an earlier, living one is joined."""
    folder = config.run.output_dir
    if not (folder / MANIFEST).is_file():
        parameters = {"config": config.model_dump(mode="json"), "run_id": run_id, "number": number}
        _refuse_failed(_computed(parameters, run_id, number), number)
    return str(folder)


def _computed(parameters: dict[str, Any], run_id: str, number: int) -> FlowRun:
    """The ended flow run that computed the iteration: one that is at it already is joined, else a new one.

    The key is the run's and not this flow run's, so two orchestrators of one run meet at one child. A child
    that ended before this moment is not taken for the answer but followed by another attempt.
    """
    now = datetime.now(UTC)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            child: Any = run_deployment(
                ITERATION_DEPLOYMENT,
                parameters=parameters,
                poll_interval=POLL_S,
                flow_run_name=f"{parameters['config']['run']['name']} attempt {attempt}",
                idempotency_key=f"iteration:{run_id}:{number}:{attempt}",
            )
        except ObjectNotFound as error:
            raise BadInputError(
                f"deployment {ITERATION_DEPLOYMENT} is missing on this server; `stagegate up` makes it"
            ) from error
        if child.end_time is None or child.end_time > now:
            ended: FlowRun = child
            return ended
    raise StagegateError(f"iteration {number} has failed {MOST_ATTEMPTS} times; look at its flow runs")


def _refuse_failed(child: FlowRun, number: int) -> None:
    state = child.state
    if state is None or not state.is_completed():
        said = "no state" if state is None else f"{state.name}: {state.message or 'without a message'}"
        raise StagegateError(
            f"iteration {number} did not end well in flow run {child.name} ({child.id}): {said}. What it "
            "committed is kept; mend the cause and retry this flow run, or `stagegate resume`",
            flow_run_id=str(child.id),
        )


def record_advice(run: GatedRun, number: int) -> None:
    """Record, metric by metric, what the changes before this iteration did."""
    records = run.records()
    if number < 2 or len(records) < number:
        return
    rows = run.store.iterations(run.run_id)
    review = review_before(run.store, run.run_id, number)
    moved = movements(records[number - 2], records[number - 1])
    run.store.record_advice_outcomes(
        [
            AdviceOutcomeCreate(
                run_id=run.run_id,
                review_id=None if review is None else review.id,
                from_iteration_id=rows[number - 2].id,
                to_iteration_id=rows[number - 1].id,
                metric=movement.metric,
                before=movement.before,
                after=movement.after,
                effect=AdviceEffect(movement.effect),
            )
            for movement in moved
        ]
    )
    helped = [m.metric for m in moved if m.effect == "better"]
    hurt = [m.metric for m in moved if m.effect == "worse"]
    get_run_logger().info("iteration %d: better %s; worse %s", number, helped or "none", hurt or "none")
