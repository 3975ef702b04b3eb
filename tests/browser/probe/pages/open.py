"""For everybody signed in: a filter in the address, and a fragment that guards itself."""

from __future__ import annotations

import streamlit as st

from components.shared import sign_in

principal = sign_in.guard()
st.title("Probe", anchor=False)
st.text_input("Customer", key="customer", bind="query-params")
st.text(f"secret figures of {principal.name}, other={st.query_params.get('other')}")


@st.fragment
def figures() -> None:
    who = sign_in.guard()
    st.button("Next page")
    st.text(f"fragment for {who.name}")


figures()
