"""Shows runs and results to people: terminal output (rich) and pictures (Matplotlib)."""
