"""Put codes around every planned site: `backends.emission` says how, the plan says which.

| float graph        | quantised graph                                                   |
|--------------------|-------------------------------------------------------------------|
| `MatMul(x, W')`    | products of codes and their sum; W' is W, or W behind Transposes  |
| `MatMul -> Add(b)` | the same, then `Add(b)`                                           |
| `Gemm(x, W', b)`   | as MatMul and Add                                                 |
| `Conv(x, W', b)`   | products of codes with b, their output coded on some targets      |

An activation that several sites read with equal codes is quantised once. Every other node stays
as it is, to the byte; the tensors that it reads keep their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends.emission import Arrays, Builder, SiteEmitter, Structure
from segquant_trt.backends.placement import Placement
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import GraphFacts, LinearSite, QuantPlan, SitePlan
from segquant_trt.rewrite.data import GraphData
from segquant_trt.rewrite.ensure import check_codes, check_untouched, expected_codes

OPSET = 21  # the first with INT4 and blocks; Split into equal parts and reductions need 18


class QuantizeSites(Pass):
    """See the module's table. After `run`, `data` names what is to be written.

    `smoothed` are the outputs of the divisors' Muls, and what they multiply by, float32[C].

    Args:
        facts: the sites.
        plan: what to do with them.
        placement: of the plan's target.
        arrays: what the plan names by key.
        timestep: the graph input for factors per step.
        folder: where the graph's external data is.

    Raises:
        SegQuantError: the plan names a site that the facts do not have, or asks for what the
            target lacks.
    """

    def __init__(
        self,
        facts: GraphFacts,
        plan: QuantPlan,
        placement: Placement,
        arrays: Arrays,
        timestep: str | None,
        folder: Path,
    ) -> None:
        self.data = GraphData(weights=(), floats=())
        self.smoothed: dict[str, npt.NDArray[np.float32]] = {}
        self._target = plan.target
        self._placement = placement
        self._arrays = arrays
        self._timestep = timestep
        self._folder = folder
        self._chosen: dict[str, tuple[LinearSite, SitePlan]] = {}
        sites = {site.name: site for site in facts.sites}
        for site_plan in plan.sites:
            if site_plan.site not in sites:
                raise _unknown_site(site_plan.site)
            site = sites[site_plan.site]
            lacking = placement.lacks(site, site_plan)
            if lacking is not None:
                raise SegQuantError(
                    f"site '{site.name}': target '{plan.target}' has no {lacking}",
                    hint="undo the edit of the plan, plan again for this target, or give the "
                    "site keep_float",
                )
            if not site_plan.treatment.is_float:
                self._chosen[site.name] = site, site_plan

    def requires(self, model: onnx.ModelProto) -> None:
        """Every planned site is a node of the graph, which is of an opset that knows its codes."""
        present = {node_name(node): node for node in model.graph.node}
        for site, _ in self._chosen.values():
            node = present.get(site.name)
            if node is None or node.op_type != site.op or node.input[0] != site.activation:
                raise _unknown_site(site.name)
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if self._chosen and opset < OPSET:
            raise SegQuantError(
                f"the graph is of opset {opset}; {OPSET} or later is needed",
                hint="export it again, or convert it with onnx.version_converter",
            )

    def apply(self, model: onnx.ModelProto) -> None:
        """Rebuild the node list in one sweep."""
        builder = Builder(FreshNames(model.graph), self._placement.float_type)
        structure = Structure(model, self._folder)
        emitter = SiteEmitter(builder, structure, self._placement, self._arrays, self._timestep)
        additions = {site.bias_node: site for site, _ in self._chosen.values() if site.bias_node}
        products: dict[str, str] = {}
        for node in model.graph.node:
            name = node_name(node)
            if name in self._chosen:
                site, site_plan = self._chosen[name]
                products[name] = node.output[0]
                emit = emitter.convolution if site.op == "Conv" else emitter.linear
                emit(node, site, site_plan)
            elif name in additions:
                site = additions[name]
                emitter.bias(node, site, product=products[site.name])
            else:
                builder.nodes.append(node)
        rebuilt = onnx.GraphProto(node=builder.nodes)
        del model.graph.node[:]
        model.graph.node.extend(rebuilt.node)
        model.graph.initializer.extend(builder.constants)
        _declare(model, list(emitter.seg_linear.functions.values()))
        self.smoothed = dict(emitter.activations.smoothed)
        self.data = GraphData(
            weights=emitter.weights,
            floats=emitter.floats,
            seg_linear=tuple(emitter.seg_linear.data),
            corrections=emitter.corrections,
        )

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """No undeclared node changed; the pairs found in the graph are those of the plan."""
        declared = set(self._chosen)
        declared |= {site.bias_node for site, _ in self._chosen.values() if site.bias_node}
        check_untouched(before, after, declared)
        check_codes(
            before, after, expected_codes(self._chosen.values(), self._placement, self.data)
        )


def _declare(model: onnx.ModelProto, functions: list[onnx.FunctionProto]) -> None:
    if functions:
        model.functions.extend(functions)
        model.opset_import.add(domain=functions[0].domain, version=1)


def _unknown_site(name: str) -> SegQuantError:
    return SegQuantError(
        f"the plan names site '{name}', which the graph does not have",
        hint="undo the edit of the plan, or run 'segquant-trt analyze' and 'plan' again",
    )
