"""What the figures were measured on."""

from __future__ import annotations

import platform
from importlib import metadata

from segquant_trt.records.hardware import hardware

__all__ = ["hardware", "versions"]

_PACKAGES = ("segquant-trt", "onnxruntime", "openvino", "onnx", "torch", "diffusers", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide speed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
