"""Where a command takes a password from: a file, or the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine_pg.errors import Invalid

PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the password; without it you are asked."),
]


def password_in(file: Path | None, *, twice: bool = False) -> str:
    """Return the first line of a file, or what is typed; a new password is typed twice."""
    if file is None:
        return typer.prompt("Password", hide_input=True, confirmation_prompt=twice)
    try:
        return file.read_text().split("\n", 1)[0].removesuffix("\r")
    except (OSError, UnicodeError) as error:
        raise Invalid(f"cannot read the password from {file}: {error}") from error
