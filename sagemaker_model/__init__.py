"""The model container: engines, pixels and the model server."""
