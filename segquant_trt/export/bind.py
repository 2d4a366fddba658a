"""Point initializers at the checkpoint's own bytes: (file, offset, length), nothing copied.

| before                | after                                                       |
|-----------------------|-------------------------------------------------------------|
| weight (float32)      | weight, stored as float32: external data                    |
| weight (stored fp16)  | weight as float16, external data -> Cast to float32         |

A bfloat16 weight works the same way: ONNX Runtime's CPU provider has no bfloat16 MatMul but a
Cast from it, which it folds when the session is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from segquant_trt.graph.safetensors_header import StoredTensor

if TYPE_CHECKING:
    import onnx_ir as ir

_ONNX_TYPES = {"F64": "DOUBLE", "F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}


def bind(model: ir.Model, weights: frozenset[str], matched: Mapping[str, StoredTensor]) -> None:
    """Bind every initializer named in `weights` to its bytes."""
    import onnx_ir as ir

    positions = {id(node): index for index, node in enumerate(model.graph)}
    for name in sorted(weights & model.graph.initializers.keys()):
        value, tensor = model.graph.initializers[name], matched[name]
        dtype = ir.DataType[_ONNX_TYPES[tensor.dtype]]
        value.const_value = ir.ExternalTensor(
            location=tensor.file,
            offset=tensor.offset_bytes,
            length=tensor.size_bytes,
            dtype=dtype,
            shape=ir.Shape(tensor.shape),
            name=name,
        )
        value.type = ir.TensorType(dtype)
        if dtype != ir.DataType.FLOAT:
            _cast_to_float32(value, positions)


def _cast_to_float32(weight: ir.Value, positions: Mapping[int, int]) -> None:
    import onnx_ir as ir

    users = tuple(weight.uses())
    node = ir.node("Cast", [weight], attributes={"to": ir.DataType.FLOAT})
    (output,) = node.outputs
    output.name, output.shape = f"{weight.name}.float32", weight.shape
    output.type = ir.TensorType(ir.DataType.FLOAT)
    for user, index in users:
        user.replace_input_with(index, output)
    # Beside its first user, not at the top: a streaming reader holds one layer at a time.
    min((user for user, _ in users), key=lambda user: positions[id(user)]).prepend(node)
