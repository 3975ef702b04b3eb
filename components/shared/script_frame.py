"""Invisible frames whose script does in the browser what a page of Streamlit cannot: listen, tell, start a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.components.v1 import declare_component


def draw_frame(folder: Path, **given: Any) -> Any:
    """Draw the frame whose files are in a folder; returns what its script says, before that the `default`.

    Declared in the run of a page: Streamlit serves no file of what was declared in an import that no page asked for, as
    the preparation at the start of a server makes it.
    """
    return declare_component(folder.name, path=folder)(**given)
