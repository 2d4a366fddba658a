"""One step upstream, by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain
from segquant_trt.graph.axes import joins, movement
from segquant_trt.graph.axes.outcome import Ended, Mixed, Outcome, Place, Through
from segquant_trt.graph.pointwise import (
    CASTS,
    common_root,
    full_operands,
    is_pointwise,
    operands,
)
from segquant_trt.graph.view import GraphView

Step = Callable[[NodeProto, Place, GraphView], Outcome]

# Each output channel is the same channel of the input, shifted and scaled.
_NORMS = (
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN",
    "LayerNormalization", "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
    "SimplifiedLayerNormalization",
)  # fmt: skip


def step_back(place: Place, view: GraphView) -> Outcome:
    """Where the traced channels of `place` are, one operator upstream."""
    node = view.wiring.producer.get(place.tensor)
    if node is None or node.op_type == "Constant":
        return Ended(node=None)
    shape = view.shapes.of(place.tensor)
    if shape is None or len(shape) != len(place.layout):
        return Ended(node=node, reason=f"the shape of '{place.tensor}' is unknown")
    if is_pointwise(node):
        return _pointwise(node, place, view)
    rule = _STEPS.get(node.op_type)
    native = has_default_domain(node) or node.op_type == "SimplifiedLayerNormalization"
    if rule is None or not native:
        return Ended(node=node)
    if node.op_type != "Split" and place.tensor != node.output[0]:
        return Ended(node=node)
    return rule(node, place, view)


def _pointwise(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    carriers = _carriers(node, place, view)
    if not carriers:
        return Ended(node=node)
    full = full_operands(node, view)
    chosen = [carrier for carrier in carriers if carrier.tensor in full]
    if len(carriers) == 1 or len(chosen) == 1:
        followed = (chosen or carriers)[0]
        return Through(place=followed, nodes=(node,), keeps_values=node.op_type in CASTS)
    root = common_root(node, view)
    if root is None:
        return Mixed(node=node, places=tuple(carriers))
    shape = view.shapes.of(root[0])
    layout = None if shape is None else movement.aligned(place.layout, shape)
    if layout is None:
        return Ended(node=node)
    return Through(place=Place(root[0], layout), nodes=root[1], keeps_values=False)


def _carriers(node: NodeProto, place: Place, view: GraphView) -> list[Place]:
    """The varying operands that have all of the traced channels."""
    found = []
    for name in operands(node):
        shape = view.shapes.of(name)
        layout = None if shape is None else movement.aligned(place.layout, shape)
        if layout is not None and view.varies(name):
            found.append(Place(name, layout))
    return found


def _norm(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    return Through(place=Place(node.input[0], place.layout), nodes=(node,), keeps_values=False)


def _pool(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    return movement.spatial(node, place, view)


_STEPS: Mapping[str, Step] = {
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(movement.RESHAPES, movement.reshape),
    **dict.fromkeys(("Resize", "Upsample"), movement.resize),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), movement.space_to_depth),
    **dict.fromkeys(
        ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"), _pool
    ),
    **dict.fromkeys(
        ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2"), movement.reduction
    ),
    "Concat": joins.concat,
    "ConcatFromSequence": joins.concat_from_sequence,
    "Einsum": movement.einsum,
    "Expand": movement.expand,
    "Gather": movement.gather,
    "Pad": movement.pad,
    "SequenceAt": movement.sequence_at,
    "Slice": movement.slice_,
    "Split": movement.split,
    "Tile": movement.tile,
    "Transpose": movement.transpose,
}
