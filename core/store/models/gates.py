"""Gates: what was asked, every answer that was given, and the one decision that stands."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AwareDatetime, model_validator
from sqlalchemy import JSON, Boolean, Index, String, UniqueConstraint, text
from sqlmodel import Field

from core.store.fields import (
    ConfigHash,
    Count,
    DecisionKind,
    GateStatus,
    JsonDict,
    Name,
    PathText,
    RunId,
    Sha256,
    SmallCount,
    Text,
    enum_text,
)
from core.store.models.base import RecordModel, StoreModel, utc_now


class GateBase(StoreModel):
    """A question at a gate. It binds to the artifact's hashes; another artifact is another `round`.

    `failed_checks` names the machine checks that did not pass. `shown` is everything that people were shown,
    and `deadline_at` the moment at which waiting becomes parked.
    """

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id")
    iteration_id: int | None = Field(default=None, foreign_key="iteration.id")
    gate: Name = Field(sa_type=String)
    number: SmallCount
    policy: Name = Field(sa_type=String)
    artifact_kind: Name = Field(sa_type=String)
    artifact_path: PathText = Field(sa_type=String)
    artifact_sha256: Sha256 = Field(sa_type=String(64), index=True)
    manifest_sha256: Sha256 = Field(sa_type=String(64))
    config_hash: ConfigHash = Field(sa_type=String)
    failed_checks: list[str] = Field(default_factory=list, sa_type=JSON)
    shown: JsonDict = Field(default_factory=dict, sa_type=JSON)


class GateCreate(GateBase, RecordModel):
    """A gate to open."""


class Gate(GateBase, table=True):
    """Table of gates; of one gate and number of a run, at most one round is not void."""

    __tablename__ = "gate"
    __table_args__: Any = (
        UniqueConstraint("run_id", "gate", "number", "round"),
        Index(
            "uq_gate_live_of_run",
            "run_id",
            "gate",
            "number",
            unique=True,
            sqlite_where=text("void_reason IS NULL"),
            postgresql_where=text("void_reason IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    round: int = 1
    status: GateStatus = Field(default=GateStatus.OPEN, sa_type=enum_text(GateStatus))
    flow_run_id: str | None = Field(default=None, sa_type=String)
    opened_at: AwareDatetime = Field(default_factory=utc_now)
    waiting_at: AwareDatetime | None = None
    deadline_at: AwareDatetime | None = None
    closed_at: AwareDatetime | None = None
    void_reason: str | None = Field(default=None, sa_type=String)


class GatePublic(GateBase):
    """A gate as read back."""

    id: int
    round: int
    status: GateStatus
    flow_run_id: str | None
    opened_at: AwareDatetime
    waiting_at: AwareDatetime | None
    deadline_at: AwareDatetime | None
    closed_at: AwareDatetime | None
    void_reason: str | None

    @property
    def key(self) -> str:
        """`pilot-2`: the gate and its number."""
        return f"{self.gate}-{self.number}"


class GateDecisionBase(StoreModel):
    """The decision of a gate: who, when, from where, on which bytes, and what it changes.

    `via` is `ui`, `cli`, `code` or `policy`; `origin` names the machine and account where known.
    `override` opened the gate against failed machine checks, with a second approver.
    """

    gate_id: int = Field(foreign_key="gate.id")
    decision: DecisionKind = Field(sa_type=enum_text(DecisionKind))
    reason: Text = Field(default="", sa_type=String)
    approver: Name = Field(sa_type=String)
    second_approver: Name | None = Field(default=None, sa_type=String)
    override: bool = Field(default=False, sa_type=Boolean)
    via: Name = Field(sa_type=String)
    origin: Text = Field(default="", sa_type=String)
    artifact_sha256: Sha256 = Field(sa_type=String(64), index=True)
    manifest_sha256: Sha256 = Field(sa_type=String(64))
    config_hash: ConfigHash = Field(sa_type=String)
    changes: JsonDict = Field(default_factory=dict, sa_type=JSON)

    @model_validator(mode="after")
    def _overridden_by_two(self) -> Self:
        if self.override and not self.second_approver:
            raise ValueError("an override needs a second approver")
        return self


class GateDecisionCreate(GateDecisionBase, RecordModel):
    """A decision to record. `code_steps` are the time steps of the one-time codes that it used up."""

    code_steps: dict[str, int] = Field(default_factory=dict)


class GateDecision(GateDecisionBase, table=True):
    """Table of decisions; a gate has one, and the first one stands."""

    __tablename__ = "gate_decision"
    __table_args__: Any = (UniqueConstraint("gate_id"),)

    id: int | None = Field(default=None, primary_key=True)
    decided_at: AwareDatetime = Field(default_factory=utc_now)


class GateDecisionPublic(GateDecisionBase):
    """A decision as read back."""

    id: int
    decided_at: AwareDatetime


class GateAnswerBase(StoreModel):
    """One answer that somebody gave to a gate, taken or not.

    `payload_sha256` identifies what was submitted, codes and all, without keeping the codes. `refusal` says
    in words why it was not taken and `refusal_kind` is one of `invalid`, `wrong_code`, `late`, `approver`.
    """

    gate_id: int = Field(foreign_key="gate.id", index=True)
    ask: Count
    approver: Text = Field(default="", sa_type=String)
    decision: Text = Field(default="", sa_type=String)
    via: Name = Field(sa_type=String)
    origin: Text = Field(default="", sa_type=String)
    payload_sha256: Sha256 = Field(sa_type=String(64))
    payload: JsonDict = Field(default_factory=dict, sa_type=JSON)
    refusal: Text | None = Field(default=None, sa_type=String)
    refusal_kind: Name | None = Field(default=None, sa_type=String)


class GateAnswerCreate(GateAnswerBase, RecordModel):
    """An answer to record."""


class GateAnswer(GateAnswerBase, table=True):
    """Table of answers."""

    __tablename__ = "gate_answer"

    id: int | None = Field(default=None, primary_key=True)
    given_at: AwareDatetime = Field(default_factory=utc_now)


class GateAnswerPublic(GateAnswerBase):
    """An answer as read back."""

    id: int
    given_at: AwareDatetime


class UsedCode(StoreModel, table=True):
    """Table of one-time codes that were used up: an approver and a time step occur once."""

    __tablename__ = "used_code"
    __table_args__: Any = (UniqueConstraint("approver", "step"),)

    id: int | None = Field(default=None, primary_key=True)
    approver: str = Field(sa_type=String)
    step: int
    gate_id: int = Field(foreign_key="gate.id")
    used_at: AwareDatetime = Field(default_factory=utc_now)
