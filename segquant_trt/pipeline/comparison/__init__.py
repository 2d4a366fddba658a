"""Bundles, ONNX files, engines and torch modules side by side."""
