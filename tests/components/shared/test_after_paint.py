from importlib import reload

import pytest
from streamlit.components import v1

from components.shared import after_paint, keys


@pytest.mark.parametrize("module", [after_paint, keys], ids=lambda module: module.__name__)
def test_what_a_browser_tells_by_a_component_is_not_declared_by_an_import(monkeypatch, module):
    """Streamlit answers 404 for a component that was first imported outside of a page, as at the start of a server."""

    def declare(*_args, **_how):
        raise AssertionError("declared by an import")

    with monkeypatch.context() as patched:
        patched.setattr(v1, "declare_component", declare)
        reload(module)
    reload(module)
