"""What the dashboard's port answers beside Streamlit, and what one process of it holds. Imports no Streamlit."""
