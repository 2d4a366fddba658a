"""Move what one prompt fixes into a graph of its own, which runs once per prompt.

| before                            | main graph      | prompt graph                         |
|-----------------------------------|-----------------|--------------------------------------|
| `prompt -> GEMM -> ... -> v`      | `v` is an input | the same                             |
| `prompt, row of t -> GEMM ... -> m` | `m` is an input | the same, a row per sample and step |

The second kind needs a frozen schedule. In the prompt graph its prompt tensors are repeated for
every step, `Gather(p, sample_of_row)`, and the timestep has one element per row. All of it stays
float: it runs once for all steps, and its error would be in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.dims import Expr
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.remove_unused import RemoveUnused, drop_unread_inputs
from segquant_trt.graph.shapes import Shapes
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import LinearSite
from segquant_trt.rewrite.ensure import check_untouched
from segquant_trt.rewrite.hoistable import Hoistable, find_hoistable

_ROWS = "rows"
_HINT = "this is a defect of the rewrite stage; please report it with the graph"


class HoistPrompt(Pass):
    """See the module's table. After `run`, `prompt` is the second graph and `found` what it gives.

    Args:
        sites: of the graph; only what at least one of them computes is hoisted.
        prompts: graph inputs that a prompt fixes.
        timestep: the graph input whose steps are frozen; None where none are.
        folder: where the graph's external data is.
    """

    def __init__(
        self,
        sites: Iterable[LinearSite],
        prompts: Collection[str],
        timestep: str | None,
        folder: Path,
    ) -> None:
        self.prompt = onnx.ModelProto()
        self.found = Hoistable(
            values=(), by_step=frozenset(), rows=frozenset(), repeated=frozenset()
        )
        self.row_input: str | None = None
        self._sites = tuple(sites)
        self._prompts = tuple(prompts)
        self._timestep = timestep
        self._folder = folder

    def requires(self, model: onnx.ModelProto) -> None:
        """The prompt's inputs are inputs of the graph."""
        given = {value.name for value in model.graph.input}
        for name in self._prompts:
            if name not in given:
                raise SegQuantError(
                    f"the graph has no input '{name}'", hint="--prompt-inputs names the inputs"
                )

    def apply(self, model: onnx.ModelProto) -> None:
        """Copy the second graph out, and turn what it gives into inputs."""
        view = GraphView.of(model, self._folder)
        self.found = find_hoistable(view, self._sites, self._prompts, self._timestep)
        if not self.found.values:
            return
        kinds = _element_types(model)
        self.prompt = self._second(model, view.shapes, kinds)
        taken = set(self.found.values)
        kept = [node for node in model.graph.node if taken.isdisjoint(node.output)]
        rebuilt = onnx.GraphProto(node=kept)
        del model.graph.node[:]
        model.graph.node.extend(rebuilt.node)
        RemoveUnused().run(model)
        declared = [_declared(name, kinds, view.shapes) for name in self.found.values]
        model.graph.input.extend(declared)

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Every node is in one graph or the other, and none that is left has changed."""
        present = {node_name(node) for node in (*after.graph.node, *self.prompt.graph.node)}
        before_names = {node_name(node) for node in before.graph.node}
        gone = before_names - {node_name(node) for node in after.graph.node}
        check_untouched(before, after, gone)
        lost = [site.name for site in self._sites if site.name in before_names - present]
        if lost:
            raise SegQuantError(f"site '{lost[0]}' is in neither graph", hint=_HINT)

    def _second(
        self, model: onnx.ModelProto, shapes: Shapes, kinds: dict[str, int]
    ) -> onnx.ModelProto:
        found = self.found
        second = onnx.ModelProto()
        second.CopyFrom(model)
        del second.metadata_props[:]
        outputs = onnx.GraphProto(
            output=[
                _declared(name, kinds, shapes, rows=name in found.by_step) for name in found.values
            ]
        )
        del second.graph.output[:]
        second.graph.output.extend(outputs.output)
        RemoveUnused().run(second)
        if found.by_step:
            self._repeat(second)
        described = [v for v in second.graph.value_info if v.name not in found.rows]
        values = onnx.GraphProto(value_info=described)
        del second.graph.value_info[:]
        second.graph.value_info.extend(values.value_info)
        drop_unread_inputs(second)
        for value in second.graph.input:
            if value.name == self._timestep:
                value.type.tensor_type.shape.dim[0].dim_param = _ROWS
        if self.row_input is not None:
            rows = helper.make_tensor_value_info(self.row_input, TensorProto.INT64, [_ROWS])
            second.graph.input.append(rows)
        return second

    def _repeat(self, second: onnx.ModelProto) -> None:
        """Give what follows the schedule one row per sample and step of what it reads."""
        names = FreshNames(second.graph)
        self.row_input = names.fresh("sample_of_row")
        repeated: dict[str, str] = {}
        nodes: list[onnx.NodeProto] = []
        for node in second.graph.node:
            if self.found.rows.isdisjoint(node.output):
                nodes.append(node)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for index, name in enumerate(node.input):
                if name not in self.found.repeated:
                    continue
                if name not in repeated:
                    repeated[name] = names.fresh(f"{name}_of_row")
                    nodes.append(
                        helper.make_node(
                            "Gather", [name, self.row_input], [repeated[name]],
                            name=repeated[name], axis=0,
                        )
                    )  # fmt: skip
                copy.input[index] = repeated[name]
            nodes.append(copy)
        rebuilt = onnx.GraphProto(node=nodes)
        del second.graph.node[:]
        second.graph.node.extend(rebuilt.node)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    return {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def _declared(
    name: str, kinds: dict[str, int], shapes: Shapes, *, rows: bool = False
) -> onnx.ValueInfoProto:
    """Type and shape of a tensor; lengths that are neither numbers nor symbols stay open."""
    if not kinds.get(name):
        raise SegQuantError(f"the element type of '{name}' is not known", hint=_HINT)
    lengths = [_length(dim) for dim in shapes.of(name) or ()]
    if rows:
        lengths[0] = _ROWS
    return helper.make_tensor_value_info(name, kinds[name], lengths)


def _length(dim: object) -> int | str | None:
    if isinstance(dim, Expr):
        (atoms, factor), *more = dim.terms
        plain = not more and factor == 1 and len(atoms) == 1 and atoms[0].isidentifier()
        return atoms[0] if plain else None
    assert isinstance(dim, int)
    return dim
