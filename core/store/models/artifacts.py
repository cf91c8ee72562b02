"""Artifacts: what a stage left on disk, by content hash, with the hashes that it was made from."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime
from sqlalchemy import JSON, String, UniqueConstraint
from sqlmodel import Field

from core.store.fields import Name, PathText, RunId, Sha256, Sha256List
from core.store.models.base import RecordModel, StoreModel, utc_now


class ArtifactBase(StoreModel):
    """A file or directory. `parents` are content hashes, sorted; `sha256` is of the content."""

    run_id: RunId = Field(sa_type=String(36), foreign_key="pipeline_run.id")
    stage_run_id: int | None = Field(default=None, foreign_key="stage_run.id", index=True)
    kind: Name = Field(sa_type=String)
    path: PathText = Field(sa_type=String)
    sha256: Sha256 = Field(sa_type=String(64), index=True)
    manifest_sha256: Sha256 | None = Field(default=None, sa_type=String(64))
    parents: Sha256List = Field(default_factory=list, sa_type=JSON)


class ArtifactCreate(ArtifactBase, RecordModel):
    """An artifact to record."""


class Artifact(ArtifactBase, table=True):
    """Table of artifacts; the same content of one kind occurs once in a run."""

    __tablename__ = "artifact"
    __table_args__: Any = (UniqueConstraint("run_id", "kind", "sha256"),)

    id: int | None = Field(default=None, primary_key=True)
    created_at: AwareDatetime = Field(default_factory=utc_now)


class ArtifactPublic(ArtifactBase):
    """An artifact as read back."""

    id: int
    created_at: AwareDatetime
