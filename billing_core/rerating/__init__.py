"""What history would have cost under another card, and booking the differences."""
