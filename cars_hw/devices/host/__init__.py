"""This machine as a device: ONNX Runtime and LiteRT, each in a worker process."""
