"""Sign-in, accounts, sessions and API tokens. Imports no Streamlit, and nothing heavy."""
