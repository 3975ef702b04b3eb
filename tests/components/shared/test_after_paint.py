from importlib import reload

from streamlit.components import v1

from components.shared import after_paint


def test_what_tells_of_the_first_paint_is_not_declared_by_an_import(monkeypatch):
    """Streamlit answers 404 for a component that was first imported outside of a page, as at the start of a server."""

    def declare(*_args, **_how):
        raise AssertionError("declared by an import")

    with monkeypatch.context() as patched:
        patched.setattr(v1, "declare_component", declare)
        reload(after_paint)
    reload(after_paint)
