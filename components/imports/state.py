"""State of the import view between two runs: the uploaded file on disk, its plan, which dialog is open.

All of it belongs to one session and goes with it, the file included.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import streamlit as st

from billing_core.imports.model import ImportPlan
from billing_core.imports.temp_folder import Scratch
from components.shared.session import Kept

TURN = "import.turn"
"""A number that gives the upload box a new identity once its file was taken over: it then lets go of its memory."""

SAID = "import.said"
"""What the last action did, to be said once."""

PIECE_BYTES = 1 << 20


class Spooled:
    """An uploaded file on disk, under a name of our own; it is deleted with this object."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._scratch = Scratch()
        self.path.touch(mode=0o600)
        with self.path.open("wb") as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)

    @property
    def path(self) -> Path:
        """The path of the uploaded file; only this account of the operating system may read it."""
        return self._scratch.path / "upload"


@dataclass(frozen=True, slots=True)
class FilePlan:
    """An uploaded file's plan at a state of the ledger, or why there is none.

    `timezone` is whose its times without an offset are, once somebody said it.
    """

    file: Spooled
    version: int
    plan: ImportPlan | None
    error: str | None = None
    timezone: str | None = None


def uploader() -> str:
    """The widget key of the upload box; a new one for every file, so that the box is empty again."""
    return f"import-file-{st.session_state.setdefault(TURN, 0)}"


def spool(name: str, file: IO[bytes]) -> Spooled:
    """Write an uploaded file to disk; the upload box that held it in memory is empty with the next run."""
    taken = Spooled(name, file)
    st.session_state[TURN] += 1
    return taken


READING = Kept[FilePlan]("import.reading")
"""The plan of the uploaded file."""

APPLYING, UNDOING = Kept[bool]("import.applying"), Kept[str]("import.undoing")
"""Whether the confirmation of the import is open; the import whose undo is to be confirmed."""


def discard() -> None:
    """Forget the uploaded file and its plan."""
    READING.drop()
    close_dialogs()


def close_dialogs() -> None:
    """Close the confirmation of an import or of an undo."""
    APPLYING.drop()
    UNDOING.drop()
