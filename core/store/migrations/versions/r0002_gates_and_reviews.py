"""Gates with their answers, decisions and used codes; reviews and what their advice did; device prices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_IS_LIVE = sa.text("void_reason IS NULL")


def upgrade() -> None:
    """Create the tables, parents first."""
    op.add_column("stage_run", sa.Column("device_usd_micros_per_hour", sa.BigInteger(), nullable=True))
    _create_gate()
    _create_gate_decision()
    _create_gate_answer()
    _create_used_code()
    _create_review()
    _create_advice_outcome()


def downgrade() -> None:
    """Drop the tables with all that they hold, children first."""
    for table in ("advice_outcome", "review", "used_code", "gate_answer", "gate_decision", "gate"):
        op.drop_table(table)
    op.drop_column("stage_run", "device_usd_micros_per_hour")


def _create_gate() -> None:
    op.create_table(
        "gate",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("iteration_id", sa.Integer(), nullable=True),
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("artifact_kind", sa.String(), nullable=False),
        sa.Column("artifact_path", sa.String(), nullable=False),
        sa.Column("artifact_sha256", sa.String(64), nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("failed_checks", sa.JSON(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("flow_run_id", sa.String(), nullable=True),
        _time("opened_at"),
        _time("waiting_at", nullable=True),
        _time("deadline_at", nullable=True),
        _time("closed_at", nullable=True),
        sa.Column("void_reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_gate"),
        sa.UniqueConstraint("run_id", "gate", "number", "round", name="uq_gate_run_id_gate_number_round"),
        _reference("gate", "run_id", "pipeline_run"),
        _reference("gate", "iteration_id", "iteration"),
    )
    op.create_index("ix_gate_artifact_sha256", "gate", ["artifact_sha256"])
    op.create_index(
        "uq_gate_live_of_run",
        "gate",
        ["run_id", "gate", "number"],
        unique=True,
        sqlite_where=_IS_LIVE,
        postgresql_where=_IS_LIVE,
    )


def _create_gate_decision() -> None:
    op.create_table(
        "gate_decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("gate_id", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("second_approver", sa.String(), nullable=True),
        sa.Column("override", sa.Boolean(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("artifact_sha256", sa.String(64), nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        _time("decided_at"),
        sa.PrimaryKeyConstraint("id", name="pk_gate_decision"),
        sa.UniqueConstraint("gate_id", name="uq_gate_decision_gate_id"),
        _reference("gate_decision", "gate_id", "gate"),
    )
    op.create_index("ix_gate_decision_artifact_sha256", "gate_decision", ["artifact_sha256"])


def _create_gate_answer() -> None:
    op.create_table(
        "gate_answer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("gate_id", sa.Integer(), nullable=False),
        sa.Column("ask", sa.Integer(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("decision", sa.String(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("payload_sha256", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=True),
        sa.Column("refusal_kind", sa.String(), nullable=True),
        _time("given_at"),
        sa.PrimaryKeyConstraint("id", name="pk_gate_answer"),
        _reference("gate_answer", "gate_id", "gate"),
    )
    op.create_index("ix_gate_answer_gate_id", "gate_answer", ["gate_id"])


def _create_used_code() -> None:
    op.create_table(
        "used_code",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("approver", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("gate_id", sa.Integer(), nullable=False),
        _time("used_at"),
        sa.PrimaryKeyConstraint("id", name="pk_used_code"),
        sa.UniqueConstraint("approver", "step", name="uq_used_code_approver_step"),
        _reference("used_code", "gate_id", "gate"),
    )


def _create_review() -> None:
    op.create_table(
        "review",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("gate_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=True),
        sa.Column("rubric", sa.String(), nullable=False),
        sa.Column("rubric_sha256", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.Column("escalation", sa.String(), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("response", sa.String(), nullable=False),
        sa.Column("latency_s", sa.Float(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cost_usd_micros", sa.BigInteger(), nullable=True),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
        sa.UniqueConstraint("gate_id", "reviewer", name="uq_review_gate_id_reviewer"),
        _reference("review", "gate_id", "gate"),
    )
    op.create_index("ix_review_gate_id", "review", ["gate_id"])


def _create_advice_outcome() -> None:
    op.create_table(
        "advice_outcome",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("review_id", sa.Integer(), nullable=True),
        sa.Column("from_iteration_id", sa.Integer(), nullable=False),
        sa.Column("to_iteration_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("before", sa.Float(), nullable=True),
        sa.Column("after", sa.Float(), nullable=True),
        sa.Column("effect", sa.String(32), nullable=False),
        _time("recorded_at"),
        sa.PrimaryKeyConstraint("id", name="pk_advice_outcome"),
        sa.UniqueConstraint("to_iteration_id", "metric", name="uq_advice_outcome_to_iteration_id_metric"),
        _reference("advice_outcome", "run_id", "pipeline_run"),
        _reference("advice_outcome", "review_id", "review"),
        _reference("advice_outcome", "from_iteration_id", "iteration"),
        _reference("advice_outcome", "to_iteration_id", "iteration"),
    )
    op.create_index("ix_advice_outcome_run_id", "advice_outcome", ["run_id"])


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _reference(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=f"fk_{table}_{column}_{parent}")
