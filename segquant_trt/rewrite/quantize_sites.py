"""Put Q/DQ pairs around every planned site.

| float graph        | quantised graph                                                   |
|--------------------|-------------------------------------------------------------------|
| `MatMul(x, W')`    | `MatMul(DQ(Q(x)), DQ(codes[K,N], scale[N]))`, W' is W^T or W |
| `MatMul -> Add(b)` | `MatMul -> Add(b)`, b lifted to [1,1,N] where the target wants it |
| `Gemm(x, W', b)`   | as MatMul and Add; a Squeeze undoes the lifted rank               |
| `Conv(x, W', b)`   | `Conv(DQ(Q(x)), DQ(codes, scale[N]), b)`, then `Q -> DQ` likewise |

An activation that several sites read with equal codes is quantised once. Every other node stays
as it is, to the byte; the tensors that it reads keep their names.
"""

from __future__ import annotations

import onnx

from segquant_trt.backends.placement import Placement
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.passes import Pass
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import GraphFacts, LinearSite, QuantPlan, SitePlan
from segquant_trt.rewrite.emit import Emitter, FloatBias, WeightCodes
from segquant_trt.rewrite.ensure import check_codes, check_untouched
from segquant_trt.schemes import Encoding, encoding


class QuantizeSites(Pass):
    """See the module's table. After `run`, `weights` and `biases` name the data to be written.

    Raises:
        SegQuantError: the plan names a site that the facts do not have, or impossible codes.
    """

    def __init__(self, facts: GraphFacts, plan: QuantPlan, placement: Placement) -> None:
        self.weights: tuple[WeightCodes, ...] = ()
        self.biases: tuple[FloatBias, ...] = ()
        self._placement = placement
        self._chosen: dict[str, tuple[LinearSite, SitePlan, Encoding]] = {}
        sites = {site.name: site for site in facts.sites}
        for site_plan in plan.sites:
            if site_plan.site not in sites:
                raise _unknown_site(site_plan.site)
            codes = encoding(site_plan.treatment.segments[0].activation, site=site_plan.site)
            if codes is not None:
                self._chosen[site_plan.site] = (sites[site_plan.site], site_plan, codes)

    def requires(self, model: onnx.ModelProto) -> None:
        """Every planned site is a node of the graph, and has what this target needs."""
        present = {node_name(node): node for node in model.graph.node}
        for site, site_plan, _ in self._chosen.values():
            node = present.get(site.name)
            if node is None or node.op_type != site.op or node.input[0] != site.activation:
                raise _unknown_site(site.name)
            if site_plan.treatment.weight is None:
                raise SegQuantError(
                    f"site '{site.name}' has quantised activations but no weight entry in the plan",
                    hint="undo the edit of the plan, or run 'segquant-trt plan' again",
                )
            needs_range = site.op == "Conv" and self._placement.requantize_conv_output
            if needs_range and site_plan.output_range is None:
                raise SegQuantError(
                    f"convolution '{site.name}' has no output_range, which this target needs",
                    hint="calibrate and plan again, or give the site keep_float",
                )

    def apply(self, model: onnx.ModelProto) -> None:
        """Rebuild the node list in one sweep."""
        emitter = Emitter(FreshNames(model.graph), self._placement)
        additions = {s.bias_node: s for s, _, _ in self._chosen.values() if s.bias_node}
        products: dict[str, str] = {}
        for node in model.graph.node:
            name = node_name(node)
            if name in self._chosen:
                site, site_plan, codes = self._chosen[name]
                products[name] = node.output[0]
                if site.op == "Conv":
                    emitter.convolution(node, site, site_plan, codes)
                else:
                    assert site_plan.treatment.weight is not None
                    emitter.linear(node, site, site_plan.treatment.weight, codes)
            elif name in additions:
                site = additions[name]
                emitter.bias(node, site, product=products[site.name])
            else:
                emitter.nodes.append(node)
        rebuilt = onnx.GraphProto(node=emitter.nodes)
        del model.graph.node[:]
        model.graph.node.extend(rebuilt.node)
        model.graph.initializer.extend(emitter.constants)
        self.weights = tuple(emitter.weights)
        self.biases = tuple(emitter.biases.values())

    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """No undeclared node changed; the pairs found in the graph are those of the plan."""
        declared = set(self._chosen)
        declared |= {site.bias_node for site, _, _ in self._chosen.values() if site.bias_node}
        check_untouched(before, after, declared)
        expected = {n: (c.scale, c.zero_point) for n, (_, _, c) in self._chosen.items()}
        check_codes(after, expected, {weight.site: weight.codes for weight in self.weights})


def _unknown_site(name: str) -> SegQuantError:
    return SegQuantError(
        f"the plan names site '{name}', which the graph does not have",
        hint="undo the edit of the plan, or run 'segquant-trt analyze' and 'plan' again",
    )
