"""Make a float32 graph compute in float16 except on islands.

| before                              | after                                               |
|-------------------------------------|-----------------------------------------------------|
| a float32 initializer               | float16, where a float16 node reads it              |
| `Cast(to=float32)`, a Constant      | `Cast(to=float16)`, a float16 Constant              |
| an edge between float16 and float32 | one Cast for all readers                            |
| inputs and outputs of the graph     | as they were, float32 with a Cast behind or before  |

Everything else keeps its place, its name and its attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.attributes import attribute
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.wiring import Wiring, node_name, subgraphs
from segquant_trt.rewrite.half.islands import Island, islands

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_HINT = "this is a defect of the rewrite stage; please report it with the plan and the graph"
_FLOAT_ONLY = {"Resize": range(1, 4), "Upsample": range(1, 2)}  # inputs that are always float32


class HalveFloats(Pass):
    """See the module's table. After `run`, `halved` names initializers to be written as float16.

    `islands` are the nodes that stayed in float32.

    Args:
        largest: magnitudes that tensors were seen with, see `largest_values`.
    """

    def __init__(self, largest: Mapping[str, float]) -> None:
        self.halved: frozenset[str] = frozenset()
        self.islands: tuple[Island, ...] = ()
        self._largest = largest
        self._types: dict[str, int] = {}

    def requires(self, model: onnx.ModelProto) -> None:
        """No control flow: its branches share tensors with the graph around them."""
        for node in model.graph.node:
            if any(subgraphs(found) for found in node.attribute):
                raise SegQuantError(
                    f"node '{node_name(node)}' ({node.op_type}) has a graph of its own, which "
                    "cannot be typed for this target",
                    hint="export the model without control flow, or choose a CPU target",
                )

    def apply(self, model: onnx.ModelProto) -> None:
        """Rebuild the node list in one sweep."""
        self._types = element_types(model)
        wiring = Wiring(model.graph)
        self.islands = islands(wiring, self._was_float, self._largest)
        kept = {island.node for island in self.islands}
        initializers = {tensor.name for tensor in model.graph.initializer}
        wants = {name: set[int]() for name in initializers if self._was_float(name)}
        for node in wiring.nodes:
            for name in self._floats_read(node):
                if name in wants:
                    wants[name].add(self._reads_as(node, name, kept))
        self.halved = frozenset(name for name, types in wants.items() if types == {_HALF})
        editor = _Editor(FreshNames(model.graph), {name: _HALF for name in self.halved})
        for node in wiring.nodes:
            editor.append(self._retyped(node, kept, editor))
        for value in model.graph.output:
            if self._was_float(value.name):
                editor.finish(value.name)
        rebuilt = onnx.GraphProto(node=editor.nodes)
        del model.graph.node[:]
        del model.graph.value_info[:]
        model.graph.node.extend(rebuilt.node)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Nothing but Casts came in, and no operator changed."""
        old = [(node_name(node), node.op_type) for node in before.graph.node]
        known = set(old)
        new = [(node_name(node), node.op_type) for node in after.graph.node]
        if [one for one in new if one in known] != old:
            raise SegQuantError("typing the graph lost or moved a node", hint=_HINT)
        strange = [one for one in new if one not in known and one[1] != "Cast"]
        if strange:
            raise SegQuantError(f"typing the graph added the node {strange[0]}", hint=_HINT)

    def _was_float(self, name: str) -> bool:
        return self._types.get(name) == _FLOAT

    def _floats_read(self, node: NodeProto) -> Iterator[str]:
        for index, name in enumerate(node.input):
            if name and self._was_float(name) and index not in _FLOAT_ONLY.get(node.op_type, ()):
                yield name

    def _reads_as(self, node: NodeProto, name: str, kept: set[str]) -> int:
        """The type in which `node` wants the float `name`."""
        only = _FLOAT_ONLY.get(node.op_type, ())
        if any(node.input[index] == name for index in only if index < len(node.input)):
            return _FLOAT
        return _FLOAT if node_name(node) in kept else _HALF

    def _retyped(self, node: NodeProto, kept: set[str], editor: _Editor) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        half = node_name(node) not in kept
        if node.op_type != "Cast":  # it takes what there is
            for index, name in enumerate(node.input):
                if name and self._was_float(name):
                    made.input[index] = editor.as_type(name, self._reads_as(node, name, kept))
        if half:
            _halve_attributes(made)
            for name in node.output:
                if name and self._was_float(name):
                    editor.types[name] = _HALF
        return made


class _Editor:
    """Nodes in order, and the Casts between them. `types`: of float tensors other than float32."""

    def __init__(self, names: FreshNames, types: dict[str, int]) -> None:
        self.nodes: list[NodeProto] = []
        self.types = types
        self._names = names
        self._cast: dict[tuple[str, int], str] = {}

    def append(self, node: NodeProto) -> None:
        self.nodes.append(node)

    def as_type(self, name: str, wanted: int) -> str:
        """`name`, or a Cast of it."""
        if self.types.get(name, _FLOAT) == wanted:
            return name
        if (name, wanted) not in self._cast:
            word = "float16" if wanted == _HALF else "float32"
            output = self._names.fresh(f"{name}_{word}")
            self.nodes.append(helper.make_node("Cast", [name], [output], name=output, to=wanted))
            self._cast[name, wanted] = output
        return self._cast[name, wanted]

    def finish(self, name: str) -> None:
        """Make the graph's output `name` float32 again."""
        if self.types.get(name, _FLOAT) == _FLOAT:
            return
        inner = self._names.fresh(f"{name}_float16")
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [inner if own == name else own for own in names]
        self.nodes.append(
            helper.make_node("Cast", [inner], [name], name=f"{inner}/Cast", to=_FLOAT)
        )


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor of the main graph.

    Raises:
        SegQuantError: that of a node's output cannot be told.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    for node in inferred.node:
        for name in node.output:
            if name and not types.get(name):
                raise SegQuantError(
                    f"the element type of '{name}', which '{node_name(node)}' ({node.op_type}) "
                    "computes, is unknown, so the graph cannot be typed for this target",
                    hint="export it again with 'segquant-trt export', or declare the type",
                )
    return types


def _halve_attributes(node: NodeProto) -> None:
    if node.op_type == "Cast":
        to = attribute(node, "to")
        if to is not None and to.i == _FLOAT:
            to.i = _HALF
    elif node.op_type == "Constant":
        value = attribute(node, "value")
        if value is not None and value.t.data_type == _FLOAT:
            array = numpy_helper.to_array(value.t)
            value.t.CopyFrom(numpy_helper.from_array(array.astype(np.float16), value.t.name))
        for old in ("value_float", "value_floats"):
            number = attribute(node, old)
            if number is not None:
                values = np.array(number.f if old == "value_float" else number.floats, np.float16)
                node.attribute.remove(number)
                node.attribute.append(
                    helper.make_attribute("value", numpy_helper.from_array(values))
                )
