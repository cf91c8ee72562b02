"""Gates, decisions, codes, reviews and money in the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import BadInputError, GateRefusedError
from core.store import (
    AdviceEffect,
    AdviceOutcomeCreate,
    DecisionKind,
    GateAnswerCreate,
    GateCreate,
    GateDecisionCreate,
    GatePublic,
    GateStatus,
    IterationCreate,
    PipelineRunPublic,
    ReviewCreate,
    StageRunCreate,
    StageRunEnd,
    StageStatus,
    Store,
)
from tests.contract.test_store_databases import (  # noqa: F401
    new_run,
    postgres_url,
    store,
    store_url,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def run(store: Store) -> PipelineRunPublic:  # noqa: F811
    return store.start_run(new_run())


def gate_of(run: PipelineRunPublic, **values: Any) -> GateCreate:
    good: dict[str, Any] = {
        "run_id": run.id,
        "gate": "pilot",
        "number": 1,
        "policy": "human",
        "artifact_kind": "dataset",
        "artifact_path": "runs/x/dataset",
        "artifact_sha256": A,
        "manifest_sha256": B,
        "config_hash": C,
    }
    return GateCreate(**{**good, **values})


def decision_on(gate: GatePublic, decision: str = "approve", **values: Any) -> GateDecisionCreate:
    good: dict[str, Any] = {
        "gate_id": gate.id,
        "decision": DecisionKind(decision),
        "approver": "anna",
        "via": "ui",
        "artifact_sha256": gate.artifact_sha256,
        "manifest_sha256": gate.manifest_sha256,
        "config_hash": gate.config_hash,
    }
    return GateDecisionCreate(**{**good, **values})


class TestGates:
    """Opened once for an artifact, waited at by one, void when the artifact changes."""

    def test_the_same_question_is_the_same_gate(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Opening again after a crash gives the gate that is there."""
        assert store.open_gate(gate_of(run)).id == store.open_gate(gate_of(run)).id

    @pytest.mark.parametrize(
        "changed",
        [
            {"artifact_sha256": "d" * 64},
            {"manifest_sha256": "d" * 64},
            {"config_hash": "d" * 64},
            {"failed_checks": ["hash chain"]},
        ],
    )
    def test_another_question_voids_gate_and_decision(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
        changed: dict[str, Any],
    ) -> None:
        """Other bytes, another config or other failed checks: the approval counts for nothing."""
        first = store.open_gate(gate_of(run))
        store.decide_gate(decision_on(first))
        assert store.approval_of("pilot", A).approver == "anna"
        second = store.open_gate(gate_of(run, **changed))
        assert (second.round, second.status) == (2, GateStatus.OPEN)
        assert store.decision(first.id) is None
        assert store.gate(first.id).status is GateStatus.VOID
        with pytest.raises(GateRefusedError, match="no approval"):
            store.approval_of("pilot", A)

    def test_only_an_approval_is_an_approval(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Reject and iterate are no approval, nor is one of another gate."""
        gate = store.open_gate(gate_of(run))
        store.decide_gate(decision_on(gate, "iterate", reason="again"))
        other = store.open_gate(gate_of(run, gate="dataset"))
        store.decide_gate(decision_on(other))
        with pytest.raises(GateRefusedError, match="no approval"):
            store.approval_of("pilot", A)

    def test_waiting_begins_once_and_for_one_flow_run(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """The first call says that waiting begins; another flow run is told who waits already."""
        gate = store.open_gate(gate_of(run))
        assert store.wait_at_gate(gate.id, "flow-1", NOW)
        assert not store.wait_at_gate(gate.id, "flow-1", NOW)
        with pytest.raises(GateRefusedError, match="flow-1"):
            store.wait_at_gate(gate.id, "flow-2", NOW)
        store.hand_over_gate(gate.id, "flow-2")
        assert not store.wait_at_gate(gate.id, "flow-2", NOW)
        assert [g.id for g in store.gates(undecided=True)] == [gate.id]

    def test_parking_comes_with_the_deadline_and_approves_nothing(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """Before the deadline nothing is parked; after it the gate is parked once and stays decidable."""
        gate = store.open_gate(gate_of(run))
        store.wait_at_gate(gate.id, "flow-1", datetime.now(UTC) + timedelta(hours=1))
        assert not store.park_gate(gate.id)
        late = store.open_gate(gate_of(run, number=2))
        store.wait_at_gate(late.id, "flow-1", datetime.now(UTC) - timedelta(seconds=1))
        assert store.park_gate(late.id)
        assert not store.park_gate(late.id)
        assert store.decision(late.id) is None
        assert store.decide_gate(decision_on(late)).decision is DecisionKind.APPROVE


class TestDecisions:
    """One decision a gate, bound to what was shown."""

    def test_of_many_at_once_one_stands(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Eight people decide at the same moment; one is recorded, seven are told who was first."""
        gate = store.open_gate(gate_of(run))

        def decide(number: int) -> str:
            try:
                return store.decide_gate(decision_on(gate, approver=f"person-{number}")).approver
            except GateRefusedError as error:
                return str(error)

        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(decide, range(8)))
        winner = store.decision(gate.id)
        assert winner is not None
        assert said.count(winner.approver) == 1
        assert sum(f"by {winner.approver} at" in text for text in said) == 7

    @pytest.mark.parametrize("field", ["artifact_sha256", "manifest_sha256", "config_hash"])
    def test_a_decision_about_something_else_is_refused(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
        field: str,
    ) -> None:
        """A decision whose hashes are not the gate's records nothing."""
        gate = store.open_gate(gate_of(run))
        with pytest.raises(GateRefusedError, match=field):
            store.decide_gate(decision_on(gate, **{field: "e" * 64}))
        assert store.decision(gate.id) is None

    def test_failed_checks_are_approved_only_as_an_override(
        self,
        store: Store,  # noqa: F811
        run: PipelineRunPublic,
    ) -> None:
        """The store itself refuses what no policy should have let through."""
        gate = store.open_gate(gate_of(run, failed_checks=["quality control"]))
        with pytest.raises(GateRefusedError, match="cannot be approved away"):
            store.decide_gate(decision_on(gate))
        with pytest.raises(ValueError, match="second approver"):
            decision_on(gate, override=True)
        kept = store.decide_gate(decision_on(gate, override=True, second_approver="ben", reason="flake"))
        assert kept.override

    def test_a_code_opens_one_gate(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """The same code a second time is refused, and nothing else of that decision is kept."""
        first, second = store.open_gate(gate_of(run)), store.open_gate(gate_of(run, number=2))
        store.decide_gate(decision_on(first, code_steps={"anna": 7}))
        assert store.code_is_used("anna", 7)
        with pytest.raises(GateRefusedError, match="used before"):
            store.decide_gate(decision_on(second, code_steps={"ben": 7, "anna": 7}))
        assert store.decision(second.id) is None
        assert not store.code_is_used("ben", 7)

    def test_wrong_codes_are_counted_by_name_and_time(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """Only refusals for a wrong code, in this name, since then."""
        gate = store.open_gate(gate_of(run))
        values: dict[str, Any] = {"gate_id": gate.id, "ask": 1, "via": "ui", "payload_sha256": A}
        for who, kind in (("anna", "wrong_code"), ("anna", "invalid"), ("ben", "wrong_code"), ("anna", None)):
            store.record_answer(
                GateAnswerCreate(**values, approver=who, refusal="no" if kind else None, refusal_kind=kind)
            )
        assert store.wrong_codes("anna", datetime.now(UTC) - timedelta(minutes=1)) == 1
        assert store.wrong_codes("anna", datetime.now(UTC) + timedelta(minutes=1)) == 0
        assert len(store.answers(gate.id)) == 4

    def test_what_was_shown_is_kept_and_then_stands(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """The sheet is kept with the gate, and cannot be changed once it is decided."""
        gate = store.open_gate(gate_of(run))
        store.show_gate(gate.id, {"sheet": "before"})
        store.decide_gate(decision_on(gate))
        store.show_gate(gate.id, {"sheet": "after"})
        assert store.gate(gate.id).shown == {"sheet": "before"}
        with pytest.raises(BadInputError, match="no gate"):
            store.gate(999_999)


class TestMoney:
    """What reviews and devices have cost, by project, run and iteration."""

    def test_spending_is_the_sum_of_devices_and_reviews(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """An hour at 3 USD and a review of 20 cents are 3.20 USD; another project's are not in it."""
        iteration = store.start_iteration(IterationCreate(run_id=run.id, number=1, seed=1))
        stage = store.start_stage(
            StageRunCreate(
                run_id=run.id, iteration_id=iteration.id, stage="x", device_usd_micros_per_hour=3_000_000
            )
        )
        store.end_stage(stage.id, StageRunEnd(status=StageStatus.DONE, seconds=3600.0))
        gate = store.open_gate(gate_of(run, iteration_id=iteration.id))
        store.record_review(review_of(gate, cost_usd_micros=200_000))
        assert store.spent_usd_micros(project=run.project) == 3_200_000
        assert store.spent_usd_micros(run_id=run.id, iteration_id=iteration.id) == 3_200_000
        assert store.spent_usd_micros(project="another") == 0

    def test_a_review_is_recorded_once(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """A reviewer's second answer to one gate does not replace the first."""
        gate = store.open_gate(gate_of(run))
        first = store.record_review(review_of(gate))
        assert store.record_review(review_of(gate, decision="no_go")) == first
        assert store.reviews(run_id=run.id) == [first]

    def test_movements_are_recorded_once(self, store: Store, run: PipelineRunPublic) -> None:  # noqa: F811
        """What advice did is written when the next iteration ends, and not again on a re-run."""
        before, after = (
            store.start_iteration(IterationCreate(run_id=run.id, number=n, seed=n)) for n in (1, 2)
        )
        moved = AdviceOutcomeCreate(
            run_id=run.id,
            from_iteration_id=before.id,
            to_iteration_id=after.id,
            metric="runaway",
            before=0.2,
            after=0.5,
            effect=AdviceEffect.WORSE,
        )
        first = store.record_advice_outcomes([moved])
        assert store.record_advice_outcomes([moved]) == first == store.advice_outcomes(run.id)


def review_of(gate: GatePublic, **values: Any) -> ReviewCreate:
    good: dict[str, Any] = {
        "gate_id": gate.id,
        "reviewer": "primary",
        "model": "m",
        "rubric": "v1",
        "rubric_sha256": A,
        "decision": "go",
    }
    return ReviewCreate(**{**good, **values})
