"""Logging of a process: one stream, structured, and without secrets.

Modules log through the standard library or structlog; what is bound with
`structlog.contextvars` (node, command, correlation id) is on every line of either.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Final, Literal

import structlog
from structlog.stdlib import ProcessorFormatter

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

_SECRET: Final = re.compile(
    r"password|secret|(?<!fencing_)token$|authorization|cookie|api_?key", re.IGNORECASE
)
_URL_PASSWORD: Final = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
_BEARER: Final = re.compile(r"\b(Bearer|Basic) [\w.~+/=-]{8,}")
_NOISY: Final = ("psycopg.pool",)  # a line for each failed attempt, while the engine tells once
_CHATTY: Final = ("httpx", "httpcore", "procrastinate", "alembic", "asyncio", "uvicorn")


def set_up_logging(level: str, form: Literal["console", "json"], **context: str) -> None:
    """Send all logs to stderr, each line with the given context (such as the node's name)."""
    structlog.contextvars.bind_contextvars(**context)
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide_secret_values,
    ]
    structlog.configure(
        processors=[*before, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                *_rendering(form),
                _hide_secrets,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)


def _rendering(form: Literal["console", "json"]) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others show local variables
        )
    ]


def _hide_secret_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {name: "***" if _SECRET.search(name) else value for name, value in event.items()}


def _hide_secrets(_logger: object, _method: str, line: object) -> str:
    """Mask what looks like a password in the finished line, tracebacks included."""
    return _BEARER.sub(r"\1 ***", _URL_PASSWORD.sub(r"\1:***@", str(line)))
