"""Everything that cannot be read anew, in one archive, and back: `backup` and `restore`."""
