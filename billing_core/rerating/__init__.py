"""Re-rating: what past usage would have cost under another card or other settings, and booking the differences."""
