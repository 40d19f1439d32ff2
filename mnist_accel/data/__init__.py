"""Data sets by name, sample order, batches and augmentation."""
