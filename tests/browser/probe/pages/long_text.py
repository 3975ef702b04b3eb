from __future__ import annotations

import streamlit as st

from components import gate

gate.guard()
st.title("Long text", anchor=False)
st.text(f"{len(st.text_area('Text')):,} characters")
