"""What runs inside the server: these modules are copied into the repository.

They and what they import need nothing but NumPy and ONNX Runtime.
"""
