"""Weights by name: the manifest, downloads, checks and checkpoint formats."""
