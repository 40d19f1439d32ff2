"""The settings of a run, with their meaning and limits, and the recipes."""
