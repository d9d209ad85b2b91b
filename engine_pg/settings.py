"""What one node may be told from outside: `ENGINE_*` variables, and a file that they may name.

What all nodes go by stands in the database (`engine_pg.configuration`).

A variable wins over the file (ENGINE_CONFIG_FILE: TOML, or lines of ENGINE_NAME=value), an
argument of `load_settings` over both. Wrong, unknown and contradictory settings are all refused
together, before anything starts.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override  # typing has it from Python 3.12 on

from engine_pg.errors import Invalid

PREFIX: Final = "ENGINE_"
_OTHERS: Final = re.compile(r"ENGINE_(CI|CONFIG_FILE|STATE_DIR|TEST_\w+)")  # not about a node
MOVED: Final = frozenset(
    {
        "host_call_timeout_s",
        "host_inflight_bound_s",
        "monitor_period_s",
        "request_body_limit_bytes",
        "token_lifetime_s",
        "auth_failures_per_minute",
        "accept_wait_s",
    }
)
"""Once of each node, now of the cluster."""
_SECRET: Final = frozenset({"ENGINE_DATABASE_URL", "ENGINE_MONITOR_URL"})
_DATABASE_URL: Final = re.compile(r"postgres(ql)?(\+\w+)?://\S+")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _own_name() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}"


def _own_url(known: dict[str, Any]) -> str:
    scheme = "https" if known["tls_certificate"] else "http"
    address = str(known["listen_address"])
    shown = f"[{address}]" if ":" in address else address
    return f"{scheme}://{shown}:{known['listen_port']}"


class Settings(BaseSettings):
    """The settings of one node; immutable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    database_url: SecretStr = Field(
        description="PostgreSQL to coordinate through; several hosts separated by commas"
    )
    monitor_url: SecretStr | None = Field(
        default=None,
        description="Monitor of the formation that the database is on, to be watched; on all nodes",
    )
    node: str = Field(
        default_factory=_own_name,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name of this node, for people; unique among the nodes of one database",
    )
    listen_address: str = Field(default="127.0.0.1", description="Address that the API listens on")
    listen_port: int = Field(default=8080, ge=1, le=65535, description="Port of the API")
    tls_certificate: FilePath | None = Field(
        default=None, description="Certificate chain (PEM); with it the API speaks HTTPS"
    )
    tls_key: FilePath | None = Field(default=None, description="Private key of the certificate")
    advertised_url: str = Field(
        default_factory=_own_url,
        pattern=r"^https?://[^/\s]+$",
        description="Where the other nodes and people reach this node's API",
    )

    lease_ttl_s: float = Field(
        default=5.0, ge=0.5, le=600, description="A silent node is taken for dead after this long"
    )
    lease_margin_s: Seconds = Field(
        default_factory=lambda known: known["lease_ttl_s"] * 0.1,
        description="A node stops believing in itself this much earlier: covers clock rates",
    )
    heartbeat_s: Seconds = Field(
        default_factory=lambda known: known["lease_ttl_s"] / 3,
        description="Interval of the renewals of the lease",
    )
    leader_weight: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="Share of the leaderships, beside the other nodes'; 0: none, while others lead",
    )
    lock_limit: int = Field(
        default=5000,
        ge=1,
        le=1_000_000,
        description="Locks that this node may hold or ask for at once",
    )
    worker_concurrency: int = Field(
        default=8, ge=1, le=1000, description="Commands that this node runs at once"
    )
    worker_urgent_concurrency: int = Field(
        default=4, ge=1, le=1000, description="Urgent commands beside them, in places of their own"
    )
    pool_min: int = Field(default=2, ge=1, description="Database connections kept open")
    pool_max: int = Field(default=12, ge=2, le=1000, description="Most database connections pooled")
    statement_bound_s: Seconds = Field(
        default=15.0, description="A statement without an answer for this long loses its connection"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged"
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people, or one JSON object per line"
    )

    @field_validator("database_url")
    @classmethod
    def _is_a_database_url(cls, given: SecretStr) -> SecretStr:
        if not _DATABASE_URL.fullmatch(given.get_secret_value()):
            raise ValueError("should look like postgresql://user:password@host:5432/engine")
        return given

    @field_validator("monitor_url")
    @classmethod
    def _is_a_monitor_url(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not _DATABASE_URL.fullmatch(given.get_secret_value()):
            raise ValueError(
                "should look like postgresql://user:password@host:5432/pg_auto_failover"
            )
        return given

    @model_validator(mode="after")
    def _is_free_of_contradictions(self) -> Self:
        found = [
            sentence
            for wrong, sentence in (
                (
                    self.lease_margin_s >= self.lease_ttl_s / 2,
                    "ENGINE_LEASE_MARGIN_S should be below half of ENGINE_LEASE_TTL_S",
                ),
                (
                    self.heartbeat_s > self.lease_ttl_s / 3,
                    "ENGINE_HEARTBEAT_S should be at most a third of ENGINE_LEASE_TTL_S",
                ),
                (
                    self.pool_min > self.pool_max,
                    "ENGINE_POOL_MIN should not be above ENGINE_POOL_MAX",
                ),
                (
                    (self.tls_certificate is None) != (self.tls_key is None),
                    "ENGINE_TLS_CERTIFICATE and ENGINE_TLS_KEY are needed together",
                ),
            )
            if wrong
        ]
        if found:
            raise ValueError("\n".join(found))
        return self

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, variables, the file that ENGINE_CONFIG_FILE names."""
        file = os.environ.get("ENGINE_CONFIG_FILE")
        if file is None:
            return init_settings, env_settings
        if file.endswith(".toml"):
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(file))
        return init_settings, env_settings, DotEnvSettingsSource(settings_cls, Path(file))


def load_settings(**overrides: object) -> Settings:
    """Return the settings in force; an override of None counts as not given."""
    complaints = _unknown_variables()
    file = os.environ.get("ENGINE_CONFIG_FILE")
    if file is not None and not Path(file).is_file():
        raise Invalid(f"ENGINE_CONFIG_FILE names no file: {file}")
    given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as problem:
        complaints += _sentences(problem)
    except ValueError as problem:  # the file is no TOML
        raise Invalid(f"{file}: {problem}") from problem
    else:
        if not complaints:
            return settings
    raise Invalid("wrong settings:\n" + "\n".join(f"  {sentence}" for sentence in complaints))


def _unknown_variables() -> list[str]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    return [
        _unknown(name, known)
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known and not _OTHERS.fullmatch(name)
    ]


def _unknown(name: str, known: list[str]) -> str:
    if (moved := name.removeprefix(PREFIX).lower()) in MOVED:
        return f"{name} is a setting of the whole cluster now: engine-pg settings set {moved} VALUE"
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name} is unknown" + (f"; did you mean {near[0]}?" if near else "")


def _sentences(problem: ValidationError) -> list[str]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    sentences: list[str] = []
    for error in problem.errors(include_url=False, include_context=False):
        if error["type"] == "default_factory_not_called":  # follows from another complaint
            continue
        said = error["msg"].removeprefix("Value error, ")
        if not error["loc"]:
            sentences += said.split("\n")
            continue
        name = PREFIX + str(error["loc"][0]).upper().removeprefix(PREFIX)
        if error["type"] == "extra_forbidden":
            sentences.append(_unknown(name, known))
        elif error["type"] == "missing":
            sentences.append(f"{name} is needed")
        else:
            shown = "" if name in _SECRET else f", not {error['input']}"
            sentences.append(f"{name} {said.removeprefix('Input ')}{shown}")
    return sentences
