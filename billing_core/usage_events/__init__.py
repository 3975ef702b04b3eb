"""Usage events as people ask for them: rows, totals, rankings, explanations."""
