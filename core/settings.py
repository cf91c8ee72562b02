"""Locations and secrets from the environment (prefix `STAGEGATE_`), read when first asked for.

Nothing here changes an output: what does belongs into the run config and so into its hash.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things live on this machine."""

    model_config = SettingsConfigDict(env_prefix="STAGEGATE_", extra="ignore")

    home: Path = Field(
        default=Path(".stagegate"),
        description="Folder of this checkout's own state: store, Prefect's database, logs.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("stagegate"),
        description="Folder for what can be made again: converted models, certifications.",
    )
    database_url: str | None = Field(
        default=None, description="URL of the store; SQLite in `home` when not given."
    )
    root: Path = Field(
        default=Path(__file__).resolve().parent.parent,
        description="Checkout whose prefect.yaml is deployed and in which workers run flows.",
    )
    server_password: SecretStr | None = Field(
        default=None,
        description="Password of the Prefect server (user `admin`); a server that other machines "
        "can reach is not started without one.",
    )
    reviewer_api_key: SecretStr | None = Field(
        default=None, description="Key of the reviewer's server, whichever that is."
    )
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="Key of OpenAI's own server, used when `reviewer_api_key` is not given, and there alone.",
    )
    second_reviewer_api_key: SecretStr | None = Field(
        default=None, description="Key of the second reviewer's server; the first one's on the same host."
    )
    sendgrid_api_key: SecretStr | None = Field(
        default=None, description="Key with which e-mail notifications are sent."
    )

    @property
    def model_cache_dir(self) -> Path:
        """Folder of converted models."""
        return self.cache_dir / "models"

    @property
    def approvers_file(self) -> Path:
        """File with the secrets of approvers' one-time codes, readable by its owner alone."""
        return self.home / "approvers.json"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.database_url or f"sqlite:///{(self.home / 'store.db').absolute()}"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
