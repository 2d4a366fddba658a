"""Remove nodes whose outputs nobody reads and initializers that nothing uses.

| before                              | after |
|-------------------------------------|-------|
| `W -> Cast -> Transpose -> (unread)` | -     |
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.wiring import node_name, read_tensors


class RemoveUnused(Pass):
    """See the module's table. Only the main graph is swept; subgraphs count as readers."""

    def requires(self, model: onnx.ModelProto) -> None:
        """Nothing: every graph qualifies."""

    def apply(self, model: onnx.ModelProto) -> None:
        """Sweep backwards from the graph's outputs."""
        graph = model.graph
        needed = {value.name for value in graph.output}
        kept = []
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                needed.update(read_tensors(node))
                kept.append(node)
        rebuilt = onnx.GraphProto(node=reversed(kept))
        del graph.node[:]
        graph.node.extend(rebuilt.node)
        used = [tensor for tensor in graph.initializer if tensor.name in needed]
        remaining = onnx.GraphProto(initializer=used)
        del graph.initializer[:]
        graph.initializer.extend(remaining.initializer)
        produced = {name for node in graph.node for name in node.output}
        described = [value for value in graph.value_info if value.name in produced]
        values = onnx.GraphProto(value_info=described)
        del graph.value_info[:]
        graph.value_info.extend(values.value_info)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Every tensor that a remaining node reads was there before and still is."""
        had = _available(before)
        has = _available(after)
        for node in after.graph.node:
            lost = [name for name in read_tensors(node) if name in had and name not in has]
            if lost:
                raise SegQuantError(
                    f"node '{node_name(node)}' lost its input '{lost[0]}'",
                    hint="this is a defect of the sweep; please report it with the graph",
                )


def part_for(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """A copy that computes these tensors and nothing else; their types are left to inference."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    RemoveUnused().run(part)
    drop_unread_inputs(part)
    return part


def drop_unread_inputs(model: onnx.ModelProto) -> None:
    """Remove inputs that no node reads."""
    read = {name for node in model.graph.node for name in read_tensors(node)}
    kept = onnx.GraphProto(input=[value for value in model.graph.input if value.name in read])
    del model.graph.input[:]
    model.graph.input.extend(kept.input)


def _available(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    names = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    return names.union(*(node.output for node in graph.node))
