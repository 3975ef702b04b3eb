from __future__ import annotations

import streamlit as st

from components.shared import sign_in

sign_in.guard()
st.title("Second", anchor=False)
st.text(f"secret figures, other={st.query_params.get('other')}")
