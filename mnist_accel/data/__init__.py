"""Data sets, the order of the samples in an epoch, batches and augmentation."""
