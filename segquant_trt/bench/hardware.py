"""What the figures were measured on."""

from __future__ import annotations

import platform
from importlib import metadata

from segquant_trt.records.hardware import hardware

__all__ = ["hardware", "versions"]

_PACKAGES = ("segquant-trt", "onnxruntime", "openvino", "onnx", "torch", "diffusers", "numpy")


def versions(further: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of Python, of the packages that decide speed, and of `further` ones if installed."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *further):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
