"""Lower a traced program to ONNX without torch's second and third pass over the whole program.

`torch.onnx.export` re-traces a program twice to decompose operators that ONNX lacks, which takes
most of an export's time (FLUX.1: one minute). The denoisers here use four such operators; with
these translated directly, nothing is left to decompose. A program that uses others takes torch's
own way.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

# 21 is the first opset with GroupNormalization as one node (20 takes it apart and hides the
# UNet's skip patterns) and with int4 types; 23 adds Attention and RMSNormalization, which ONNX
# Runtime's and OpenVINO's CPU kernels cover only in part.
OPSET = 21


def lower(program: Any) -> ir.Model:
    """The ONNX graph of a `torch.export.ExportedProgram`, unoptimised, weights by name."""
    import torch

    _simplify(program)
    _decompose_only_if_needed(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            verbose=False,
            custom_translation_table={
                torch.ops.aten.rms_norm.default: _rms_norm,
                torch.ops.aten.outer.default: _outer,
            },
        )
    assert exported is not None
    return exported.model


def _simplify(program: Any) -> None:
    """Conversions as the one cast that ONNX knows; what changes nothing (`x[:]`) goes."""
    import torch

    aten = torch.ops.aten
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in (aten.to.dtype, aten.to.dtype_layout, aten.to.device):
            _put_in_place(program, node, _cast(graph, node, node.args[0]))
        elif node.target is aten.slice.Tensor and _takes_all(*node.args):
            _put_in_place(program, node, node.args[0])
        elif node.target is aten.outer.default:
            node.args = tuple(_cast(graph, node, argument) for argument in node.args)
    program.graph_module.recompile()


def _put_in_place(program: Any, old: Any, new: Any) -> None:
    old.replace_all_uses_with(new)
    program.graph_signature.replace_all_uses(old.name, new.name)
    program.graph_module.graph.erase_node(old)


def _takes_all(
    source: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> bool:
    unbounded = end is None or (isinstance(end, int) and end == sys.maxsize)
    return start in (None, 0) and unbounded and step == 1


def _cast(graph: Any, place: Any, source: Any) -> Any:
    """`source` in the type of `place`'s result."""
    import torch

    dtype = place.meta["val"].dtype
    if source.meta["val"].dtype == dtype:
        return source
    with graph.inserting_before(place):
        cast = graph.call_function(torch.ops.aten._to_copy.default, (source,), {"dtype": dtype})
    cast.meta = dict(place.meta) | {"val": source.meta["val"].to(dtype)}
    return cast


def _decompose_only_if_needed(program: Any) -> None:
    decompose = program.run_decompositions

    def run_decompositions(table: Any = None, **options: Any) -> Any:
        for node in program.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if table is None or node.target in table or (schema and schema.is_mutable):
                return decompose(table, **options)
        return program

    program.run_decompositions = run_decompositions


def _rms_norm(
    source: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes."""
    import onnxscript

    op: Any = onnxscript.opset21
    axes = list(range(-len(normalized_shape), 0))
    # This very form is what ONNX Runtime and OpenVINO fuse into one kernel.
    square = op.ReduceMean(op.Pow(source, 2.0), axes, keepdims=1)
    floor = 1.1920928955078125e-07 if eps is None else eps  # float32's, as torch
    normal = op.Div(source, op.Sqrt(op.Add(square, floor)))
    return normal if weight is None else op.Mul(normal, weight)


def _outer(left: Any, right: Any) -> Any:
    import onnxscript

    op: Any = onnxscript.opset21
    return op.Mul(op.Unsqueeze(left, [1]), right)
