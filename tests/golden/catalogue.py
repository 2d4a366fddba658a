"""Which golden graphs there are, and where."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Literal

import onnx

Form = Literal["optimized", "plain", "opset18", "opset23", "legacy"]

FOLDER = Path(__file__).parent / "graphs"
_FAMILIES = (
    "sd15",
    "sdxl",
    "sd3",
    "flux",
    "flux2",
    "pixart",
    "sana",
    "dit",
    "hunyuan",
    "wan",
    "cogvideox",
    "qwen",
)
# Forms of what torch's two exporters write: the default; without the optimiser (transposed
# weights, SplitToSequence, CastLike); with GroupNorm and GELU taken apart; with Attention and
# RMSNormalization as one node; by the TorchScript exporter (chunks become computed Slices; FLUX's
# rotary embedding holds at the traced size only).
_FORMS: dict[Form, tuple[str, ...]] = {
    "optimized": _FAMILIES,
    "plain": _FAMILIES,
    "opset18": ("sd15", "sd3", "flux", "pixart"),
    "opset23": ("sd3", "flux"),
    "legacy": ("sd15", "sd3", "flux", "pixart"),
}
# Graph name to (family, form).
GRAPHS: dict[str, tuple[str, Form]] = {
    f"{family}.{form}": (family, form) for form, families in _FORMS.items() for family in families
}


def packed_path(name: str) -> Path:
    """Where the graph `name` is committed."""
    return FOLDER / f"{name}.onnx.xz"


def read_graph(path: Path) -> onnx.ModelProto:
    """Unpack a graph; its weights have names, types and shapes and no values."""
    return onnx.load_from_string(lzma.decompress(path.read_bytes()))
