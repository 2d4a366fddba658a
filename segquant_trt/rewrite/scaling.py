"""Scale a tensor by a vector per channel: edits that are found first and taken together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

from segquant_trt.backends.emission import FloatTensor
from segquant_trt.graph.attributes import ints_attribute
from segquant_trt.graph.constant_weight import constant_origin
from segquant_trt.graph.dims import Dim
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.shapes import Shape, Shapes
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.rewrite.data import GraphData

Float = npt.NDArray[np.float32]
_ELEMENTWISE = frozenset(
    ("Add", "Cast", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "Identity", "Mul", "Neg", "Pow",
     "Sigmoid", "Softplus", "Sub", "Sum", "Swish", "Tanh")
)  # fmt: skip
_FIXED_AXES = frozenset(("GroupNormalization", "InstanceNormalization", "Reshape"))

Rule = Callable[["Scaling", NodeProto, str, Float, int], "Edits | None"]


@dataclass(slots=True, kw_only=True)
class Edits:
    """What makes a tensor come out scaled; nothing is changed before `Scaling.take` applies it.

    `inputs`: (node, operand, new name). `gains`: decoded weight and its vector. `added`: nodes by
    the tensor that they read. `attributes`: (node, name, value).
    """

    inputs: list[tuple[NodeProto, int, str]] = field(default_factory=list)
    gains: list[tuple[str, Float]] = field(default_factory=list)
    floats: list[FloatTensor] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    added: list[tuple[str, NodeProto]] = field(default_factory=list)
    attributes: list[tuple[NodeProto, str, int]] = field(default_factory=list)

    def extend(self, other: Edits) -> Edits:
        """Both."""
        for name in ("inputs", "gains", "floats", "constants", "added", "attributes"):
            getattr(self, name).extend(getattr(other, name))
        return self


class Scaling:
    """Finds edits of an emitted graph, and notes the ones that are taken.

    The graph's wiring is looked at once: a tensor that edits have given another reader has none
    that it would be scaled for.

    Args:
        wiring: of the emitted graph.
        shapes: of its tensors.
        names: for what is added.
        data: its initializers that are yet to be computed.
        rules: by operator, how its output is scaled by what it reads.
    """

    def __init__(
        self,
        wiring: Wiring,
        shapes: Shapes,
        names: FreshNames,
        data: GraphData,
        rules: Mapping[str, Rule],
    ) -> None:
        self.added: list[tuple[str, NodeProto]] = []
        self.constants: list[onnx.TensorProto] = []
        self.touched: set[str] = set()
        self._wiring = wiring
        self._rules = rules
        self._shapes = shapes
        self._names = names
        self._floats = {tensor.name: tensor for tensor in data.floats}
        self._gains: dict[str, Float] = {}
        self._data = data
        self._decoded = {weight.decoded for weight in data.weights}
        self._relative = {weight.relative: weight.decoded for weight in data.weights}
        self._corrections = {correction.name for correction in data.corrections}

    @property
    def data(self) -> GraphData:
        """The initializers to be computed, with all vectors that were taken."""
        weights = []
        for weight in self._data.weights:
            gain = self._gains.get(weight.decoded)
            own = gain if weight.gain is None or gain is None else weight.gain * gain
            weights.append(weight if gain is None else replace(weight, gain=own))
        now = {weight.codes: weight for weight in weights}
        corrections = (replace(c, weight=now[c.weight.codes]) for c in self._data.corrections)
        return replace(
            self._data,
            weights=tuple(weights),
            floats=tuple(self._floats.values()),
            corrections=tuple(corrections),
        )

    def take(self, edits: Edits) -> None:
        """Apply edits to the graph's nodes and to the data."""
        for node, index, name in edits.inputs:
            node.input[index] = name
            self.touched.add(node_name(node))
        for node, attribute, value in edits.attributes:
            kept = [a for a in node.attribute if a.name != attribute]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
        for decoded, vector in edits.gains:
            self._gains[decoded] = self._gains.get(decoded, np.float32(1.0)) * vector
        self._floats |= {tensor.name: tensor for tensor in edits.floats}
        self.constants += edits.constants
        self.added += edits.added

    def operand(self, node: NodeProto, index: int, vector: Float, axis: int) -> Edits | None:
        """Edits by which `node` reads its operand times `vector`; None: there are none.

        Args:
            node: the reader.
            index: of the operand.
            vector: float32[C].
            axis: of the channels, counted from the end (negative).
        """
        name = node.input[index]
        if self.is_constant(name):
            return self._constant(node, index, vector, axis)
        found = self.tensor(name, vector, axis) if self.reads_alone(node, name) else None
        return self._beside(node, index, vector, axis) if found is None else found

    def reads_alone(self, node: NodeProto, name: str) -> bool:
        """Whether `node` is the only reader of `name`, and reads it once."""
        return list(node.input).count(name) == 1 and self._wiring.sole_consumer(name) is node

    def tensor(self, name: str, vector: Float, axis: int) -> Edits | None:
        """Edits by which `name`, which has one reader, comes out times `vector`."""
        node = self._wiring.producer.get(name)
        rule = None if node is None else self._rules.get(node.op_type)
        return None if node is None or rule is None else rule(self, node, name, vector, axis)

    def every(
        self, node: NodeProto, indices: Sequence[int], vector: Float, axis: int
    ) -> Edits | None:
        """Edits of several operands; None unless there are some for each."""
        edits = Edits()
        for index in indices:
            found = self.operand(node, index, vector, axis)
            if found is None:
                return None
            edits.extend(found)
        return edits

    def length(self, name: str, axis: int) -> Dim | None:
        """Length of an axis, counted from the end; 1 where there is no such axis."""
        dims = self.shape(name)
        if dims is None:
            return None
        return dims[axis] if -axis <= len(dims) else 1

    def shape(self, name: str) -> Shape | None:
        """The lengths of a tensor, or None."""
        return self._floats[name].shape if name in self._floats else self._shapes.of(name)

    def weight(self, node: NodeProto, vector: Float, axis: int) -> Edits | None:
        """Edits of the weight's output channels, `axis` of it, by `vector`."""
        name = node.input[1]
        if name in self._decoded:
            return Edits(gains=[(name, vector)])
        base = self._floats.get(name) or self._float_weight(node)
        if base is None:
            return None
        gain = vector.reshape([-1 if i == axis else 1 for i in range(len(base.shape))])
        return self._replaced(node, 1, base, gain)

    def _float_weight(self, node: NodeProto) -> FloatTensor | None:
        """A float32 weight with one reader: others would grow, or be stored twice."""
        name = stored = node.input[1]
        maker = self._wiring.producer.get(name)
        transpose = maker is not None and maker.op_type == "Transpose" and node.op_type != "Conv"
        if maker is not None and transpose:
            if ints_attribute(maker, "perm") not in (None, (1, 0)):
                return None
            stored = maker.input[0]
        tensor = self._wiring.initializers.get(stored)
        alone = self.reads_alone(node, name) and self._wiring.sole_consumer(stored) is not None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or not alone:
            return None
        dims = tuple(tensor.dims)
        return FloatTensor(
            name=stored, source=stored, shape=dims[::-1] if transpose else dims, transpose=transpose
        )

    def coders(self, name: str, vector: Float, axis: int) -> Edits | None:
        """Edits by which all that reads `name`, all of it QuantizeLinear, reads it times `vector`.

        None where channels lie last, or might after the runtime moved transposes about: neighbours
        of unlike scales are coded one by one, slowly.
        """
        dims = self.shape(name)
        readers = self._wiring.consumers.get(name, [])
        if dims is None or axis == -1 or not readers or name in self._wiring.graph_outputs:
            return None
        if not self._keeps_axes(name):
            return None
        edits = Edits()
        for node in readers:
            found = self._coder(node, vector, len(dims) + axis)
            if found is None:
                return None
            edits.extend(found)
        return edits

    def _keeps_axes(self, name: str) -> bool:
        """Whether no Transpose, of the graph or around a convolution, can be moved to `name`.

        A runtime whose convolutions want channels last transposes around them, and moves that
        through elementwise nodes; normalisations over the second axis and Reshapes stop it.
        """
        seen, open_ends = {name}, [name]
        while open_ends:
            node = self._wiring.producer.get(open_ends.pop())
            if node is None or node.op_type in _FIXED_AXES:
                continue
            if node.op_type not in _ELEMENTWISE:
                return False
            open_ends += [read for read in node.input if read and read not in seen]
            seen.update(node.input)
        return True

    def _coder(self, node: NodeProto, vector: Float, axis: int) -> Edits | None:
        values = [self._wiring.initializers.get(name) for name in node.input[1:3]]
        if node.op_type != "QuantizeLinear" or len(values) < 2 or None in values:
            return None
        scale, zero = (numpy_helper.to_array(value) for value in values if value is not None)
        if scale.ndim:
            return None
        arrays = (scale / vector, np.full(vector.shape, zero))
        names = [self._names.fresh(f"{name}_divided") for name in node.input[1:3]]
        return Edits(
            inputs=[(node, 1, names[0]), (node, 2, names[1])],
            constants=[numpy_helper.from_array(a, n) for a, n in zip(arrays, names, strict=True)],
            attributes=[(node, "axis", axis)],
        )

    def is_constant(self, name: str) -> bool:
        """Whether `name` is an initializer, or will be one."""
        promised = name in self._floats or name in self._relative or name in self._corrections
        return promised or constant_origin(name, self._wiring) is not None

    def _constant(self, node: NodeProto, index: int, vector: Float, axis: int) -> Edits | None:
        name = node.input[index]
        if name in self._relative:
            return Edits(gains=[(self._relative[name], vector)])
        if name in self._corrections:
            return Edits()  # it follows the weight, which the other operand comes from
        base = self._floats.get(name)
        if base is None:
            origin = constant_origin(name, self._wiring)
            if origin is None or origin[0] not in self._wiring.initializers:
                return None
            dims = tuple(self._wiring.initializers[origin[0]].dims)
            base = FloatTensor(name=name, source=origin[0], shape=dims)
        length = base.shape[axis] if -axis <= len(base.shape) else 1
        if length not in (1, len(vector)) or np.prod(base.shape, dtype=int) != length:
            return None
        column = vector.reshape(-1, *[1] * (-axis - 1))
        held = self._wiring.initializers.get(name)
        if name not in self._floats and held is not None and _holds_floats(held):
            product = numpy_helper.to_array(held) * column
            made = numpy_helper.from_array(product, self._names.fresh(f"{name}_scaled"))
            return Edits(inputs=[(node, index, made.name)], constants=[made])
        return self._replaced(node, index, base, column)

    def _replaced(self, node: NodeProto, index: int, base: FloatTensor, gain: Float) -> Edits:
        made = replace(
            base,
            name=self._names.fresh(f"{base.name}_scaled"),
            shape=np.broadcast_shapes(base.shape, gain.shape),
            gain=gain if base.gain is None else base.gain * gain,
            shift=None if base.shift is None else base.shift * gain,
        )
        return Edits(inputs=[(node, index, made.name)], floats=[made])

    def _beside(self, node: NodeProto, index: int, vector: Float, axis: int) -> Edits | None:
        """A Mul of an operand that has one row per sample."""
        name = node.input[index]
        dims = self.shape(name)
        if dims is None or self.length(name, axis) != len(vector):
            return None
        others = [length for i, length in enumerate(dims) if i not in (0, len(dims) + axis)]
        if any(length != 1 for length in others) or self._rows(node) <= len(dims) - len(others):
            return None
        column = vector.reshape(-1, *[1] * (-axis - 1))
        factor = numpy_helper.from_array(column, self._names.fresh(f"{name}_smoothing"))
        result = self._names.fresh(f"{name}_smoothed")
        made = helper.make_node("Mul", [name, factor.name], [result], name=result)
        return Edits(inputs=[(node, index, result)], constants=[factor], added=[(name, made)])

    def _rows(self, node: NodeProto) -> int:
        """How many axes of the node's result are longer than 1, or may be."""
        dims = self.shape(node.output[0]) or ()
        return sum(length != 1 for length in dims)


def _holds_floats(tensor: onnx.TensorProto) -> bool:
    """Whether the graph itself holds its numbers, in float32."""
    return tensor.HasField("raw_data") and tensor.data_type == onnx.TensorProto.FLOAT
