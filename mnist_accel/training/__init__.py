"""One run, from its configuration to its files: the loop, and what happens around it."""
