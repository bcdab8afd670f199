"""The model container: engines, image processing, the model server and training."""
