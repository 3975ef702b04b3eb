"""Usage in, credits out: the rate card as data and the rules as pure functions."""
