"""Export of trained networks to ONNX, TorchScript and TensorFlow Lite."""
