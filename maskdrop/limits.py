"""Limits that several parts of Maskdrop share."""

IMAGE_BYTES_MAX = 32 * 1024 * 1024
"""Maximum size of an image file in bytes: uploads, downloads, and the default of the container (MODEL_MAX_BYTES).

A 50 MP camera JPEG has about 25 MB."""
