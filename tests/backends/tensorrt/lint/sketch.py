"""Draws quantised graphs node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT8, UINT8, INT4 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4
FP8 = TensorProto.FLOAT8E4M3FN
_NUMPY = {FLOAT: np.float32, FLOAT16: np.float16, BFLOAT16: ml_dtypes.bfloat16}
# TensorRT-RTX reports products by the names of their nodes.
PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")


class Sketch:
    """A graph of one float type; every method returns the name of a tensor."""

    def __init__(self, kind: int = FLOAT16, *, codes: int = INT8, seed: int = 0) -> None:
        self.kind = kind
        self.codes = codes
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *dims: int | str, kind: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind or self.kind, dims))
        return name

    def output(self, *names: str, kind: int | None = None) -> None:
        self.outputs += [helper.make_tensor_value_info(n, kind or self.kind, None) for n in names]

    def floats(self, values: Any) -> str:
        return self.array(np.asarray(values, dtype=np.float32).astype(_NUMPY[self.kind]))

    def array(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def ints(self, *values: int) -> str:
        return self.array(np.array(values, dtype=np.int64))

    def stored(self, values: Any, kind: int) -> str:
        """A constant of a type that NumPy does not have."""
        array = np.asarray(values)
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, kind, array.shape, array.reshape(-1)))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, name=name, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, outputs: int, name: str = "", **attributes: Any
    ) -> list[str]:
        at = len(self.nodes)
        made = [f"t{at}" if outputs == 1 else f"t{at}.{i}" for i in range(outputs)]
        node = helper.make_node(kind, inputs, made, name=name or f"{kind}_{at}", **attributes)
        self.nodes.append(node)
        return made

    def pair(
        self, x: str, scale: Any = 0.05, *, codes: int | None = None, **attributes: Any
    ) -> str:
        """x -> QuantizeLinear -> DequantizeLinear."""
        step = self.floats(scale)
        zero = self.stored(np.zeros(np.shape(scale)), codes or self.codes)
        coded = self.op("QuantizeLinear", x, step, zero, **attributes)
        return self.op("DequantizeLinear", coded, step, zero, **attributes)

    def weight(
        self, *dims: int, axis: int | None, codes: int | None = None, scale: Any = None
    ) -> str:
        """Constant codes -> DequantizeLinear."""
        kind = codes or self.codes
        count = () if axis is None else (dims[axis],)
        if scale is None:
            scale = self.rng.uniform(0.001, 0.01, count)
        values = (
            self.rng.integers(-99, 100, dims) if kind == INT8 else self.rng.normal(size=dims) * 60
        )
        inputs = (self.stored(values, kind), self.floats(scale), self.stored(np.zeros(count), kind))
        attributes = {} if axis is None else {"axis": axis}
        return self.op("DequantizeLinear", *inputs, **attributes)

    def linear(
        self, x: str, inner: int, outer: int, name: str, *, scale: Any = 0.05, coded: bool = True
    ) -> str:
        """x -> Q/DQ -> MatMul with a coded weight -> Add of a bias."""
        operand = self.pair(x, scale) if coded else x
        made = self.op("MatMul", operand, self.weight(inner, outer, axis=1), name=name)
        return self.op("Add", made, self.floats(self.rng.normal(size=outer)))

    def model(self, *, opset: int = 21, ir: int = 10) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.constants)
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def products(model: onnx.ModelProto) -> Sequence[str]:
    """Names of the products of the main graph."""
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS]
