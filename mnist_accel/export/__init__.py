"""Exports of trained models for other programs, and the inspection of files."""
