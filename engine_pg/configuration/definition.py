"""The cluster settings: types, defaults, bounds, and what they are for. A new one needs no more.

A value that breaks a rule of a release counts as its default there: all nodes of one release agree,
whatever was written past them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from engine_pg.errors import Invalid, NotFound

_DAY_S: Final = 24 * 3600.0
_SHOWN: Final = 60


class ClusterSettings(BaseModel):
    """The settings of all nodes; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    host_call_timeout_s: float = Field(
        default=10.0,
        ge=0.1,
        le=300,
        description="A host that does not answer a call for this long is unreachable",
    )
    host_inflight_bound_s: float = Field(
        default=10.0,
        ge=0.1,
        le=600,
        description="A call given up may still reach a host within this long",
    )
    adoption_limit: int = Field(
        default=5,
        ge=1,
        le=100,
        description="So many nodes may end while they run a command, until it is given up",
    )
    monitor_period_s: float = Field(
        default=3.0, ge=0.1, le=60, description="Interval of looks at each host"
    )
    accept_wait_s: float = Field(
        default=10.0, ge=0, le=300, description="Longest wait of a request for its command's end"
    )
    request_body_limit_bytes: int = Field(
        default=1 << 20, ge=1 << 10, le=1 << 26, description="Largest accepted request body"
    )
    token_lifetime_s: float = Field(
        default=_DAY_S / 2,
        ge=120,
        le=365 * _DAY_S,
        description="A login token unused for this long expires",
    )
    auth_failures_per_minute: int = Field(
        default=30, ge=1, le=100_000, description="Failed logins accepted per minute and user"
    )
    read_policy: Literal["fresh", "bounded", "strict"] = Field(
        default="fresh",
        description="Reads without the database: as old as it is, at most so old, or refused",
    )
    read_staleness_s: float = Field(
        default=60.0,
        ge=0,
        le=_DAY_S,
        description="Oldest answer to a read under the policy bounded",
    )
    read_wait_s: float = Field(
        default=2.0,
        ge=0.01,
        le=60,
        description="Longest wait of a read for the database to confirm it",
    )
    streams_per_node: int = Field(
        default=100, ge=0, le=10_000, description="Streams of changes that a node serves at once"
    )
    stream_heartbeat_s: float = Field(
        default=10.0,
        ge=0.5,
        le=30,
        description="Interval of signs of life on a stream of changes",
    )
    change_retention_hours: float = Field(
        default=1.0,
        ge=0.1,
        le=720,
        description="Changes are kept for this long, for readers that are away",
    )
    change_retention_limit_hours: float = Field(
        default=24.0,
        ge=0.1,
        le=720,
        description="Those that a living reader has not seen are kept for this long",
    )
    change_retention_limit_rows: int = Field(
        default=1_000_000,
        ge=1000,
        le=100_000_000,
        description="Most changes that are kept, whoever has not seen them",
    )
    event_retention_days: float = Field(
        default=30.0, ge=1, le=3650, description="Events are kept for this long"
    )
    command_retention_days: float = Field(
        default=30.0,
        ge=1,
        le=3650,
        description="Ended commands are kept, and their Idempotency-Keys known, for this long",
    )
    member_retention_days: float = Field(
        default=7.0, ge=1, le=3650, description="Ended members are kept for this long"
    )


NAMES: Final = tuple(ClusterSettings.model_fields)


def field_of(name: str) -> FieldInfo:
    """Return what is known of a setting; raises `NotFound`."""
    field = ClusterSettings.model_fields.get(name)
    if field is None:
        raise NotFound(f"there is no setting {name[:_SHOWN]}")
    return field


def bounds_of(name: str) -> dict[str, Any]:
    """Return `type`, `minimum`, `maximum` and `enum` as JSON schema does, as far as there are."""
    schema: dict[str, Any] = ClusterSettings.model_json_schema()["properties"][name]
    kept = ("type", "minimum", "maximum", "enum")
    return {key: schema[key] for key in kept if key in schema}


def overlaid(values: Mapping[str, object]) -> ClusterSettings:
    """Return the defaults with values laid over them; raises `Invalid`."""
    try:
        return ClusterSettings.model_validate(values)
    except ValidationError as problem:
        raise Invalid("; ".join(complaints(problem).values())) from problem


def tolerated(values: Mapping[str, object]) -> tuple[ClusterSettings, dict[str, str]]:
    """Return the settings in force, and what is wrong with those values that are not, by name."""
    wrong: dict[str, str] = {}
    try:
        return ClusterSettings.model_validate(values), wrong
    except ValidationError as problem:
        wrong = complaints(problem)
    return ClusterSettings.model_validate(
        {k: v for k, v in values.items() if k not in wrong}
    ), wrong


def read(name: str, text: str) -> object:
    """Return the value that a text stands for; raises `Invalid`."""
    field_of(name)
    try:
        found = ClusterSettings.model_validate_strings({name: text}, strict=False)
    except ValidationError as problem:
        raise Invalid("; ".join(complaints(problem).values())) from problem
    return getattr(found, name)


def complaints(problem: ValidationError) -> dict[str, str]:
    """Return what is wrong, a sentence for each name."""
    return {
        str(error["loc"][0]): _sentence(str(error["loc"][0]), error["type"], error["msg"], error)
        for error in problem.errors(include_url=False, include_context=False)
    }


def _sentence(name: str, kind: str, said: str, error: Mapping[str, Any]) -> str:
    if kind == "extra_forbidden":
        return f"there is no setting {name[:_SHOWN]}"
    return f"{name} {said.removeprefix('Input ')}, not {str(error['input'])[:_SHOWN]}"
