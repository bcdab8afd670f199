"""Implements the protocols of `maskdrop.services` with botocore and translates its errors."""
