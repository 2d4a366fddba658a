"""Small quantised graphs, written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Code = Literal["int8", "fp8"]
ROWS, DEPTH, WIDTH = 64, 256, 512  # of the linears here: [2, ROWS, DEPTH] times [DEPTH, WIDTH]
_NUMPY = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}


class Graph:
    """Nodes, constants and inputs in the order in which they are asked for.

    Constants of NumPy's float64 take the graph's float type `float_type`.
    """

    def __init__(self, float_type: int = TensorProto.FLOAT16, *, opset: int = 21) -> None:
        self.float_type, self.opset = float_type, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(0)
        self._count = 0

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, name: str, *shape: int | str, float_type: int | None = None) -> str:
        kind = self.float_type if float_type is None else float_type
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values: Any, *, float_type: int | None = None) -> str:
        array = np.asarray(values)
        if array.dtype == np.float64:
            array = array.astype(_NUMPY[self.float_type if float_type is None else float_type])
        self.constants.append(numpy_helper.from_array(array, self._fresh("constant")))
        return self.constants[-1].name

    def number(self, value: float) -> str:
        return self.constant(np.array(value))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def random(self, *shape: int) -> str:
        return self.constant(self._random.random(shape) + 0.5)

    def codes(self, shape: Sequence[int], code: Code) -> str:
        if code == "int8":
            return self.constant(self._random.integers(-127, 128, shape).astype(np.int8))
        return self._float8(self._random.standard_normal(shape))

    def _float8(self, values: Any) -> str:
        array = np.asarray(values).astype(ml_dtypes.float8_e4m3fn)
        raw = array.tobytes()
        kind = TensorProto.FLOAT8E4M3FN
        name = self._fresh("float8")
        self.constants.append(helper.make_tensor(name, kind, array.shape, raw, raw=True))
        return name

    def zero(self, code: Code, shape: Sequence[int] = ()) -> str:
        if code == "int8":
            return self.constant(np.zeros(shape, dtype=np.int8))
        return self._float8(np.zeros(shape))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        return self.op_many(kind, *inputs, name=name, outputs=1, **attributes)[0]

    def op_many(
        self, kind: str, *inputs: str, outputs: int, name: str | None = None, **attributes: Any
    ) -> list[str]:
        name = self._fresh(kind) if name is None else name
        made = [self._fresh("tensor") for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made

    def pair(
        self,
        source: str,
        scale: Any = 0.05,
        *,
        code: Code = "int8",
        decoded_scale: float | None = None,
        float_type: int | None = None,
        **axis: int,
    ) -> str:
        """Q and DQ; `scale` is a number, an array, or a tensor's name."""
        zero = self.zero(code, () if isinstance(scale, str) else np.shape(scale))
        name = scale if isinstance(scale, str) else self._scale(scale, float_type)
        back = name if decoded_scale is None else self._scale(decoded_scale, float_type)
        coded = self.op("QuantizeLinear", source, name, zero, **axis)
        return self.op("DequantizeLinear", coded, back, zero, **axis)

    def _scale(self, value: Any, float_type: int | None) -> str:
        return self.constant(np.asarray(value, dtype=np.float64), float_type=float_type)

    def weight(
        self,
        *shape: int,
        code: Code = "int8",
        axis: int | None = None,
        scale: float | None = None,
        float_type: int | None = None,
    ) -> str:
        """Decoded codes: one `scale` for all, or a random one per index of `axis`."""
        stored = self.codes(shape, code)
        if axis is None:
            number = self._scale(0.004 if scale is None else scale, float_type)
            return self.op("DequantizeLinear", stored, number, self.zero(code))
        count = shape[axis]
        scales = self._scale(self._random.random(count) * 0.01 + 0.001, float_type)
        return self.op("DequantizeLinear", stored, scales, self.zero(code, [count]), axis=axis)

    def linear(self, source: str, name: str, *, code: Code = "int8", scale: float = 0.05) -> str:
        """The plain form: Q/DQ, one weight scale per output channel, no bias."""
        data = self.pair(source, scale, code=code)
        return self.op("MatMul", data, self.weight(DEPTH, WIDTH, code=code, axis=1), name=name)

    def row_maximum(self, source: str, *axes: int) -> str:
        largest = self.op("ReduceMax", self.op("Abs", source), self.integers(*axes), keepdims=1)
        return self.op("Max", largest, self.number(1e-4))

    def silu(self, source: str) -> str:
        return self.op("Mul", source, self.op("Sigmoid", source))

    def model(self, *outputs: str) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(name, self.float_type, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, values, self.constants)
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)
