"""Pipeline runs, and the iterations inside them (one pilot after another, each with its seed)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pydantic import AwareDatetime
from sqlalchemy import JSON, BigInteger, String, UniqueConstraint
from sqlmodel import Field

from core.store.fields import (
    ConfigHash,
    Count,
    GitSha,
    JsonDict,
    Name,
    PathText,
    RunId,
    RunStatus,
    Sha256,
    SmallCount,
    Text,
    Verdict,
    enum_text,
)
from core.store.models.base import RecordModel, StoreModel, utc_now


def new_run_id() -> str:
    """A fresh run id: a random UUID in its 36-character form."""
    return str(uuid4())


class PipelineRunBase(StoreModel):
    """What identifies a run. `git_dirty` None means unknown, which is not the same as clean.

    `git_sha` is of the first start; artifacts made after a resume name theirs in their manifests.
    """

    project: Name = Field(sa_type=String)
    name: Name = Field(sa_type=String, index=True)
    config_hash: ConfigHash = Field(sa_type=String)
    config_yaml: Text = Field(sa_type=String)
    model_source: PathText = Field(sa_type=String)
    model_sha256: Sha256 | None = Field(default=None, sa_type=String)
    output_dir: PathText = Field(sa_type=String, index=True)
    git_sha: GitSha | None = Field(default=None, sa_type=String)
    git_dirty: bool | None = None
    flow_run_id: Name | None = Field(default=None, sa_type=String)


class PipelineRunCreate(PipelineRunBase, RecordModel):
    """A run to start. With the `id` of a known run it resumes that run."""

    id: RunId = Field(default_factory=new_run_id)


class PipelineRun(PipelineRunBase, table=True):
    """Table of runs."""

    __tablename__ = "pipeline_run"

    id: str = Field(primary_key=True, max_length=36)
    status: RunStatus = Field(default=RunStatus.RUNNING, sa_type=enum_text(RunStatus))
    created_at: AwareDatetime = Field(default_factory=utc_now, index=True)
    ended_at: AwareDatetime | None = None


class PipelineRunPublic(PipelineRunBase):
    """A run as read back. Times are in UTC; `ended_at` is None while it runs."""

    id: str
    status: RunStatus
    created_at: AwareDatetime
    ended_at: AwareDatetime | None


class IterationBase(StoreModel):
    """One pilot of a run: its number, its seed and the parameters that it tried."""

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id")
    number: SmallCount
    seed: Count = Field(sa_type=BigInteger)
    params: JsonDict = Field(default_factory=dict, sa_type=JSON)


class IterationCreate(IterationBase, RecordModel):
    """An iteration to start."""


class Iteration(IterationBase, table=True):
    """Table of iterations; a number occurs once in a run."""

    __tablename__ = "iteration"
    __table_args__: Any = (UniqueConstraint("run_id", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    started_at: AwareDatetime = Field(default_factory=utc_now)
    ended_at: AwareDatetime | None = None
    verdict: Verdict | None = Field(default=None, sa_type=enum_text(Verdict))


class IterationPublic(IterationBase):
    """An iteration as read back. `verdict` is None until it has ended."""

    id: int
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    verdict: Verdict | None
