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
from core.errors import BadInputError, IntegrityError, RunMismatchError, StagegateError
from core.history import advice_taken, review_before
from core.iterations import movements
from core.provenance.manifest import MANIFEST, Artifact, read_artifact, read_manifest
from core.store import AdviceEffect, AdviceOutcomeCreate, GateDecisionPublic, Verdict
from flows.gates import pass_gate
from tasks.bookkeeping import record_artifact
from tasks.gated_run import GatedRun
from tasks.questions import DATASET, pilot_question, read_summary

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
    artifact = settle_iteration(run, number, config)
    record_advice(run, number)
    question = pilot_question(run, number, config)
    iteration = run.store.iterations(run.run_id)[number - 1]
    return pass_gate(run, question, config, [artifact], iteration.id)


def settle_iteration(run: GatedRun, number: int, config: RunConfig) -> Artifact:
    """The iteration's artifact, its end recorded even where its process died right after sealing it.

    Raises:
        IntegrityError: it cannot be read any more; its gate and what was decided there are void.
        RunMismatchError: it was made with another config than the one that was approved.
    """
    folder = run.iteration_folder(number)
    try:
        artifact = read_artifact(folder)
        made_with = read_manifest(folder)["meta"]["config_hash"]
        verdict = read_summary(folder)["verdict"]
        read_artifact(folder / DATASET)
    except (StagegateError, OSError, ValueError, KeyError) as error:
        for gate in run.store.gates(run.run_id):
            if (gate.gate, gate.number) == ("pilot", number):
                run.store.void_gate(gate.id, f"iteration {number} cannot be read any more")
        raise IntegrityError(
            f"iteration {number} of {run.name} cannot be read any more, so what was decided on it is void: "
            f"{error}. Restore {folder}, or start a new run",
            path=str(folder),
        ) from error
    if made_with != config.config_hash():
        raise RunMismatchError(
            f"iteration {number} of {run.name} was made with other parameters than those decided on now; "
            "start a new run with them",
            differences=[],
        )
    row = run.store.iterations(run.run_id)[number - 1]
    run.store.end_iteration(row.id, Verdict(verdict))
    record_artifact(run.run_id, artifact)
    return artifact


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
    if review is not None and advice_taken(run.store, review)[0] == 0:
        review = None  # what was changed was not its advice, so what came of it is not its merit
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
