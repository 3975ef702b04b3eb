"""Reading Langfuse: API detection, bulk readers for both API generations, roll-up to one row per trace."""
