"""Organizations as an admin sees them: what they used, what it is worth, how far their plans reach, what changed."""
