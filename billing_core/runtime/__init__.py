"""What a running process needs: the clock, locks, pacing, bounded HTTP, private files, faults said in one line."""
