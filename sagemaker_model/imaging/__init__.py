"""Decoding, refining, compositing and encoding of images."""
