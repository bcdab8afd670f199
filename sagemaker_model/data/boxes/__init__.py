"""Readers of detection data sets, each from the form in which it is published to a list of `BoxedEntry`."""
