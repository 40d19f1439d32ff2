"""The architectures by name, input normalisation, and trained models ready for use."""
