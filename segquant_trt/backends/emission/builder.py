"""Collect nodes in order, and the small constants that they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.backends.placement import FloatType
from segquant_trt.graph.names import FreshNames


class Builder:
    """Nodes and inline constants of a graph that is being rewritten.

    Args:
        names: of the graph, so that nothing collides.
        float_type: what floats will be in the end. They are float32 here, but of numbers that
            two constants must agree on this type's are taken, see `number`.
    """

    def __init__(self, names: FreshNames, float_type: FloatType = "float32") -> None:
        self.float_type = float_type
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.names = names
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(self, operator: str, inputs: Sequence[str], wanted: str, **attributes: Any) -> str:
        """Append a node whose output is called `wanted` or nearly so, and return that name."""
        output = self.names.fresh(wanted)
        made = helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def pieces(self, tensor: str, sizes: Sequence[int], *, axis: int) -> tuple[str, ...]:
        """Append a Split of `tensor` into `sizes` along `axis`, and return the names."""
        outputs = [self.names.fresh(f"{tensor}_segment{index}") for index in range(len(sizes))]
        lengths = self.constant(np.array(sizes, dtype=np.int64), f"{tensor}_segments")
        made = helper.make_node("Split", [tensor, lengths], outputs, axis=axis)
        made.name = self.names.fresh(f"{tensor}/segments")
        self.nodes.append(made)
        return tuple(outputs)

    def halves(self, tensor: str) -> tuple[str, str]:
        """Append a Split of `tensor` into equal halves along its first axis."""
        outputs = [self.names.fresh(f"{tensor}_{half}") for half in ("upper", "lower")]
        made = helper.make_node("Split", [tensor], outputs, axis=0, num_outputs=2)
        made.name = self.names.fresh(f"{tensor}/halves")
        self.nodes.append(made)
        return outputs[0], outputs[1]

    def constant(self, array: npt.NDArray[np.generic], wanted: str) -> str:
        """An inline initializer; equal ones are stored once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.names.fresh(wanted)
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def number(self, value: float) -> float:
        """`value` as the final float type has it."""
        return float(np.dtype(self.float_type).type(value))

    @property
    def tiny(self) -> float:
        """The smallest normal number of the final float type."""
        return float(np.finfo(self.float_type).tiny)

    def rename(self, tensor: str, wanted: str) -> None:
        """Give the output of the last node, which nothing reads yet, the name `wanted`."""
        last = self.nodes[-1]
        assert list(last.output) == [tensor]
        last.output[0] = wanted
