"""Proofs about a rewritten graph: nothing undeclared changed, and the pairs are the plan's."""

from __future__ import annotations

from collections.abc import Mapping, Set

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.qdq import codes_behind, weight_codes_behind
from segquant_trt.graph.wiring import Wiring, node_name

_HINT = "this is a defect of the rewrite stage; please report it with the plan and the graph"


def check_untouched(before: onnx.ModelProto, after: onnx.ModelProto, declared: Set[str]) -> None:
    """Every node outside `declared` is in `after`, byte for byte.

    Raises:
        SegQuantError: naming the first node that changed or vanished.
    """
    kept = {node.SerializeToString(deterministic=True) for node in after.graph.node}
    for node in before.graph.node:
        if node_name(node) in declared:
            continue
        if node.SerializeToString(deterministic=True) not in kept:
            raise SegQuantError(
                f"node '{node_name(node)}' changed although the plan does not name it", hint=_HINT
            )


def check_codes(
    after: onnx.ModelProto,
    expected: Mapping[str, tuple[float, int]],
    weights: Mapping[str, str],
) -> None:
    """The planned sites, and only they, read decoded codes: scale and zero point of the plan.

    Args:
        after: the rewritten graph.
        expected: scale and zero point of the activation per site.
        weights: name of the int8 weight per site.

    Raises:
        SegQuantError: naming the first site that differs.
    """
    wiring = Wiring(after.graph)
    for node in after.graph.node:
        name = node_name(node)
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        decoded = weight_codes_behind(node.input[1], wiring)
        found = codes_behind(node.input[0], wiring) if decoded else None
        if decoded != weights.get(name) or found != expected.get(name):
            raise SegQuantError(
                f"site '{name}' is emitted with codes {found} and weight {decoded}; "
                f"the plan wants {expected.get(name)} and {weights.get(name)}",
                hint=_HINT,
            )
