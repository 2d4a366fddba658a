"""Graphs of a few nodes, built by name, for the analyses' tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from segquant_trt.analyze import analyze
from segquant_trt.records import GraphFacts, SiteSegments

Array = np.ndarray[Any, Any]
Dims = Sequence[int | str]


@dataclass
class Drawing:
    """A graph under construction; every method returns the name of what it made."""

    opset: int = 21
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: dict[str, Dims] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)

    def input(self, name: str, *dims: int | str) -> str:
        """A float32 graph input."""
        self.inputs[name] = dims
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """An initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node's first output."""
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """All outputs of a node."""
        stem = attributes.pop("name", f"{kind}_{len(self.nodes)}")
        names = [stem if outputs == 1 else f"{stem}.{index}" for index in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=f"n:{stem}", **attributes)
        self.domains.add(node.domain)
        self.nodes.append(node)
        return names

    def reshape(self, source: str, *dims: int) -> str:
        """Reshape to constant dims."""
        return self.op("Reshape", source, self.constant(dims, np.int64))

    def slice(self, source: str, start: int, end: int, axis: int) -> str:
        """Slice with constant bounds."""
        bounds = [self.constant([value], np.int64) for value in (start, end, axis)]
        return self.op("Slice", source, *bounds)

    def unsqueeze(self, source: str, axis: int) -> str:
        """Unsqueeze."""
        return self.op("Unsqueeze", source, self.constant([axis], np.int64))

    def split(self, source: str, *sizes: int, axis: int = -1) -> list[str]:
        """Split in given sizes."""
        given = self.constant(sizes, np.int64)
        return self.ops("Split", source, given, outputs=len(sizes), axis=axis)

    def linear(self, name: str, source: str, rows: int, columns: int, *, bias: bool = True) -> str:
        """A MatMul called `name`, and its bias."""
        weight = np.random.default_rng(len(self.nodes)).normal(size=(rows, columns))
        product = self.op("MatMul", source, self.constant(weight), name=name)
        self.nodes[-1].name = name
        return self.op("Add", product, self.constant(np.ones(columns))) if bias else product

    def conv(self, name: str, source: str, channels: int, width: int, kernel: int = 3) -> str:
        """A convolution called `name`, padded to the same size."""
        weight = np.random.default_rng(0).normal(size=(width, channels, kernel, kernel))
        pad = kernel // 2
        result = self.op("Conv", source, self.constant(weight), name=name, pads=[pad] * 4)
        self.nodes[-1].name = name
        return result

    def silu(self, source: str) -> str:
        """x sigmoid(x), as exporters write it."""
        return self.op("Mul", source, self.op("Sigmoid", source))

    def model(self) -> onnx.ModelProto:
        """The graph; what nobody reads is its output."""
        read = {name for node in self.nodes for name in node.input}
        unread = [n for node in self.nodes for n in node.output if n and n not in read]
        names = [*self.outputs, *(name for name in unread if name not in self.outputs)]
        kind = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "drawing",
            [helper.make_tensor_value_info(n, kind, list(d)) for n, d in self.inputs.items()],
            [helper.make_tensor_value_info(name, kind, None) for name in names],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self.domains - {""})]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def facts(self, folder: Path, **options: Any) -> GraphFacts:
        """What analyze finds."""
        path = folder / "drawing.onnx"
        onnx.save(self.model(), str(path))
        return analyze(path, **options)

    def run(self, feeds: Mapping[str, Array], *names: str) -> list[Array]:
        """Values of tensors, by ONNX's own reference."""
        model = self.model()
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        for value in model.graph.output:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        return list(ReferenceEvaluator(model).run(list(names), dict(feeds)))


def segments_of(facts: GraphFacts, site: str, side: str = "input") -> list[SiteSegments]:
    """The segments of one side of a site."""
    return [found for found in facts.segments if (found.site, found.side) == (site, side)]


def reasons(facts: GraphFacts, site: str) -> list[str]:
    """Why patterns were rejected at a site."""
    return [rejection.reason for rejection in facts.rejections if rejection.site == site]
