"""Decoding, matte refinement, compositing and encoding of images."""
