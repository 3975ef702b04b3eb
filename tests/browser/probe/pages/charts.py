from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components.shared import sign_in

sign_in.guard()
st.title("Charts", anchor=False)
st.plotly_chart(go.Figure(go.Bar(x=["a", "b"], y=[1, 2])), alt="Two bars")
st.dataframe(pd.DataFrame({"day": ["a", "b"], "credits": [1, 2]}), alt="Two rows")
