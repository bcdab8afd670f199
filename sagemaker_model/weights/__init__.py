"""Weights by name: manifest, downloads, verification and checkpoint formats."""
