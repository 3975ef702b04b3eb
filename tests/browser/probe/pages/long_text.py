from __future__ import annotations

import streamlit as st

from components.shared import sign_in

sign_in.guard()
st.title("Long text", anchor=False)
st.text(f"{len(st.text_area('Text')):,} characters")
