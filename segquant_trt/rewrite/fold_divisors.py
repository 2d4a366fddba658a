"""Fold smoothing divisors into what computes the smoothed tensors.

| before                                    | after                                              |
|-------------------------------------------|----------------------------------------------------|
| `Norm(x, scale, bias) -> Mul(1/d)`        | `Norm(x, scale / d, bias / d)`                     |
| `Linear(x) -> Mul(1/d)`                   | its output channels and bias over d                |
| `Norm(x) * (1 + scale) + shift -> Mul(1/d)` | `Norm(x, 1/d) * (1 + scale) + shift / d`         |
| `a * gelu(b) -> Mul(1/d)`, a of a linear  | the linear's columns for a over d                  |
| `Mul(1/d) -> QuantizeLinear(s)`, see `Scaling.coders` | `QuantizeLinear(s d)`            |
| whose value something else reads, or that comes from elsewhere | the Mul stays                 |

`scaling_rules` lists all that a divisor passes on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.shapes import infer_shapes
from segquant_trt.graph.wiring import Wiring, node_name
from segquant_trt.rewrite.data import GraphData, with_promised
from segquant_trt.rewrite.ensure import check_untouched
from segquant_trt.rewrite.scaling import Float, Scaling
from segquant_trt.rewrite.scaling_rules import RULES

_HINT = "this is a defect of the rewrite stage; please report it with the plan and the graph"


class FoldDivisors(Pass):
    """See the module's table. After `run`, `data` names what is to be written.

    `folded` are the outputs of Muls that are gone; `coded` those of them that codes took.

    Args:
        smoothed: the output of each divisor's Mul, and 1 / d float32[C].
        data: of the emitted graph.
        folder: where the float graph's external data is.
        coders: whether codes with a scale per channel may take a divisor.
    """

    def __init__(
        self,
        smoothed: Mapping[str, Float],
        data: GraphData,
        folder: Path,
        *,
        coders: bool = False,
    ) -> None:
        self.data = data
        self.folded: tuple[str, ...] = ()
        self.coded: tuple[str, ...] = ()
        self._smoothed = smoothed
        self._folder = folder
        self._coders = coders
        self._touched: set[str] = set()

    def requires(self, model: onnx.ModelProto) -> None:
        """Every smoothed tensor is a Mul of the graph."""
        made = {node.output[0]: node.op_type for node in model.graph.node}
        for name in self._smoothed:
            if made.get(name) != "Mul":
                raise SegQuantError(f"divisor '{name}' is not in the graph", hint=_HINT)

    def apply(self, model: onnx.ModelProto) -> None:
        """Try each divisor in the order of the graph."""
        wiring = Wiring(model.graph)
        promised = with_promised(model, self.data)
        known = Wiring(promised.graph)
        shapes = infer_shapes(promised, known, Constants(known, self._folder))
        scaling = Scaling(wiring, shapes, FreshNames(promised.graph), self.data, RULES)
        folded: dict[str, str] = {}
        coded: list[str] = []
        for node in wiring.nodes:
            inverse = self._smoothed.get(node.output[0])
            if inverse is None:
                continue
            axis = -len(wiring.initializers[node.input[1]].dims)
            alone = scaling.reads_alone(node, node.input[0])
            edits = scaling.tensor(node.input[0], inverse, axis) if alone else None
            if edits is None and self._coders:
                edits = scaling.coders(node.output[0], inverse, axis)
                coded += [] if edits is None else [node.output[0]]
            if edits is not None:
                scaling.take(edits)
                folded[node.output[0]] = node.input[0]
        self._rebuild(model, wiring, scaling, folded)
        read = {name for node in model.graph.node for name in node.input}
        floats = tuple(tensor for tensor in scaling.data.floats if tensor.name in read)
        self.data = replace(scaling.data, floats=floats)
        self.folded, self.coded = tuple(folded), tuple(coded)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Nodes that no divisor passed are as before; a divisor is folded, or its Mul is there."""
        check_untouched(before, after, self._touched)
        present = {node.output[0] for node in after.graph.node}
        for name in self._smoothed:
            if (name in present) == (name in self.folded):
                raise SegQuantError(f"divisor '{name}' is folded twice or never", hint=_HINT)

    def _rebuild(
        self, model: onnx.ModelProto, wiring: Wiring, scaling: Scaling, folded: Mapping[str, str]
    ) -> None:
        """Drop folded Muls, and put new ones behind what they read."""
        behind: dict[str, list[onnx.NodeProto]] = {}
        for source, node in scaling.added:
            behind.setdefault(source, []).append(node)
        nodes = [node for value in model.graph.input for node in behind.get(value.name, [])]
        self._touched = set(scaling.touched)
        for node in wiring.nodes:
            if node.output[0] in folded:
                self._touched.add(node_name(node))
                continue
            for index, name in enumerate(node.input):
                if name in folded:
                    node.input[index] = folded[name]
                    self._touched.add(node_name(node))
            nodes.append(node)
            for output in node.output:
                nodes += behind.get(output, [])
        rebuilt = onnx.GraphProto(node=nodes, initializer=scaling.constants)
        del model.graph.node[:]
        model.graph.MergeFrom(rebuilt)
