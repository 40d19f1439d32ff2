"""Devices, precision, processes, launch, signals and CPU cores."""
