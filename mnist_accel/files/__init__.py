"""Files that appear whole, checkpoints, weights, run records, and the safe reading of untrusted files."""
