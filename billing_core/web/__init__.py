"""HTTP routes, middleware and background jobs of the dashboard's server. Imports no Streamlit."""
