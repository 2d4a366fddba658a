"""segquant_trt: a semantics-aware quantising compiler for diffusion denoisers.

The package root imports nothing heavy. ``compile`` and ``load`` resolve on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError

if TYPE_CHECKING:
    from segquant_trt.pipeline import compile
    from segquant_trt.serve.load import load

__version__ = "0.2.0"
__all__ = ["SegQuantError", "__version__", "compile", "load"]


def __getattr__(name: str) -> Any:
    if name == "compile":
        from segquant_trt.pipeline import compile

        return compile
    if name == "load":
        from segquant_trt.serve import load

        return load
    raise AttributeError(f"module 'segquant_trt' has no attribute {name!r}")
