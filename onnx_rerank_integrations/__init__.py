"""Rescore and truncate retrieved documents with ONNX cross-encoders."""

__version__ = "0.1.0"
