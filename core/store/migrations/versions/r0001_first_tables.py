"""Pipeline runs, iterations, stage runs, artifacts and QC metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ITERATION_IS_NULL = sa.text("iteration_id IS NULL")
_ITERATION_IS_SET = sa.text("iteration_id IS NOT NULL")


def upgrade() -> None:
    """Create the tables, parents first."""
    _create_pipeline_run()
    _create_iteration()
    _create_stage_run()
    _create_artifact()
    _create_qc_metric()


def downgrade() -> None:
    """Drop the tables with all that they hold, children first."""
    for table in ("qc_metric", "artifact", "stage_run", "iteration", "pipeline_run"):
        op.drop_table(table)


def _create_pipeline_run() -> None:
    op.create_table(
        "pipeline_run",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("config_yaml", sa.String(), nullable=False),
        sa.Column("model_source", sa.String(), nullable=False),
        sa.Column("model_sha256", sa.String(), nullable=True),
        sa.Column("output_dir", sa.String(), nullable=False),
        sa.Column("git_sha", sa.String(), nullable=True),
        sa.Column("git_dirty", sa.Boolean(), nullable=True),
        sa.Column("flow_run_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_pipeline_run"),
    )
    op.create_index("ix_pipeline_run_created_at", "pipeline_run", ["created_at"])
    op.create_index("ix_pipeline_run_name", "pipeline_run", ["name"])
    op.create_index("ix_pipeline_run_output_dir", "pipeline_run", ["output_dir"])


def _create_iteration() -> None:
    op.create_table(
        "iteration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verdict", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_iteration"),
        sa.UniqueConstraint("run_id", "number", name="uq_iteration_run_id_number"),
        _reference("iteration", "run_id", "pipeline_run"),
    )


def _create_stage_run() -> None:
    op.create_table(
        "stage_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("iteration_id", sa.Integer(), nullable=True),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("records_in", sa.BigInteger(), nullable=True),
        sa.Column("records_out", sa.BigInteger(), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=True),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_stage_run"),
        _reference("stage_run", "run_id", "pipeline_run"),
        _reference("stage_run", "iteration_id", "iteration"),
    )
    op.create_index("ix_stage_run_run_id", "stage_run", ["run_id"])
    _unique_with_and_without_iteration("stage_run", "attempt", ["stage", "attempt"])


def _create_artifact() -> None:
    op.create_table(
        "artifact",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("stage_run_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=True),
        sa.Column("parents", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifact"),
        sa.UniqueConstraint("run_id", "kind", "sha256", name="uq_artifact_run_id_kind_sha256"),
        _reference("artifact", "run_id", "pipeline_run"),
        _reference("artifact", "stage_run_id", "stage_run"),
    )
    op.create_index("ix_artifact_sha256", "artifact", ["sha256"])
    op.create_index("ix_artifact_stage_run_id", "artifact", ["stage_run_id"])


def _create_qc_metric() -> None:
    op.create_table(
        "qc_metric",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("iteration_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("numerator", sa.BigInteger(), nullable=True),
        sa.Column("denominator", sa.BigInteger(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("bound", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_qc_metric"),
        _reference("qc_metric", "run_id", "pipeline_run"),
        _reference("qc_metric", "iteration_id", "iteration"),
    )
    op.create_index("ix_qc_metric_run_id", "qc_metric", ["run_id"])
    _unique_with_and_without_iteration("qc_metric", "name", ["name"])


def _reference(table: str, column: str, parent: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{parent}.id"], name=f"fk_{table}_{column}_{parent}")


def _unique_with_and_without_iteration(table: str, what: str, columns: list[str]) -> None:
    """NULL differs from NULL in a unique index, so rows without an iteration need their own."""
    for suffix, owner, condition in (
        ("run", "run_id", _ITERATION_IS_NULL),
        ("iteration", "iteration_id", _ITERATION_IS_SET),
    ):
        op.create_index(
            f"uq_{table}_{what}_of_{suffix}",
            table,
            [owner, *columns],
            unique=True,
            sqlite_where=condition,
            postgresql_where=condition,
        )
