"""Checkpoints: one file a source format, and where their files are."""
