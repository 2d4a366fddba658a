"""Four-bit codes of integer products as int8, in memory: no CPU kernel multiplies by them packed.

The file keeps two codes per byte. Weights whose activation stays float are not touched: runtimes
have kernels that unpack those.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from segquant_trt.backends.base import Array
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.qdq import coded_products, is_coded
from segquant_trt.graph.wiring import Wiring


def widen_int4(model: onnx.ModelProto, folder: Path) -> dict[str, Array]:
    """Declare the INT4 weights of integer products INT8, in place, and return their values.

    The caller must give a runtime these arrays in place of the initializers' data.
    """
    wiring = Wiring(model.graph)
    names = []
    for node, codes in coded_products(wiring):
        narrow = wiring.initializers[codes].data_type == onnx.TensorProto.INT4
        if narrow and is_coded(node.input[0], wiring):
            decode = wiring.producer[node.input[1]]
            names += [codes, *decode.input[2:]]
    weights = Weights(model, folder)
    arrays: dict[str, Array] = {name: weights.read(name).astype(np.int8) for name in names}
    for name in arrays:
        tensor = wiring.initializers[name]
        tensor.CopyFrom(
            onnx.TensorProto(name=name, dims=tensor.dims, data_type=onnx.TensorProto.INT8)
        )
    return arrays
