"""One digest for all weights of a graph, wherever they are stored."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segquant_trt.graph.bigfile import Weights

if TYPE_CHECKING:
    import onnx


def weights_digest(model: onnx.ModelProto, folder: Path) -> str:
    """Hex sha256 over names, types and values of all initializers, sorted by name.

    An engine for refitting with identical weights computes something else, without an error,
    when it is given others: that is what this guards against.

    Raises:
        SegQuantError: a weight file is missing or cut off.
    """
    weights = Weights(model, folder)
    digest = hashlib.sha256()
    for name in sorted(weights):
        head = f"{name}\0{weights.dtype(name)}\0{weights.shape(name)}\0"
        digest.update(head.encode())
        digest.update(np.ascontiguousarray(weights.read(name)).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()
