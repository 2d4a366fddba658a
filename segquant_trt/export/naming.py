"""Deterministic names, and nothing in the file that tells where or when it was made.

A node is called after its module and operator, `transformer_blocks.0.attn.to_q/MatMul`; its
outputs `..._output_0`. Weights keep their state-dict names, constants are numbered.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from segquant_trt.records import TensorSpec

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_NO_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


def finish(
    model: ir.Model, weights: frozenset[str], inputs: Sequence[TensorSpec], output: TensorSpec
) -> None:
    """Rename nodes and values, keep only the scopes of torch's metadata, state the interface."""
    _name_constants(model, weights)
    _name_nodes(model)
    _strip_metadata(model)
    for value, spec in zip(
        (*model.graph.inputs, *model.graph.outputs), (*inputs, output), strict=True
    ):
        _state(value, spec)
    model.graph.name = "denoiser"


def module_of(node: ir.Node) -> str:
    """The innermost torch module that the node came from; empty for the model itself."""
    scopes = node.metadata_props.get(NAME_SCOPES)
    # The last scope is the traced call itself, the first the whole model.
    module = next(reversed(ast.literal_eval(scopes)[:-1]), "") if scopes else ""
    return "" if module == _NO_SCOPE else str(module)


def _name_constants(model: ir.Model, weights: frozenset[str]) -> None:
    initializers = model.graph.initializers
    constants = [value for name, value in initializers.items() if name not in weights]
    order = {id(value): index for index, value in enumerate(_in_order_of_use(model))}
    constants.sort(key=lambda value: order.get(id(value), len(order)))
    for index, value in enumerate(constants):
        value.name = f"constant_{index}"
    for name in sorted(initializers):
        initializers[name] = initializers.pop(name)


def _in_order_of_use(model: ir.Model) -> list[ir.Value]:
    seen: dict[int, ir.Value] = {}
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.producer() is None:
                seen.setdefault(id(value), value)
    return list(seen.values())


def _name_nodes(model: ir.Model) -> None:
    counts: dict[str, int] = {}
    outputs = set(map(id, model.graph.outputs))
    for node in model.graph:
        scope = module_of(node) or _consumer_scope(node)
        stem = f"{scope}/{node.op_type}" if scope else node.op_type
        count = counts[stem] = counts.get(stem, -1) + 1
        node.name = f"{stem}_{count}" if count else stem
        for index, value in enumerate(node.outputs):
            if id(value) not in outputs:
                value.name = f"{node.name}_output_{index}"


def _consumer_scope(node: ir.Node) -> str:
    """The Cast of a weight carries no scope: it belongs to the layer that uses it."""
    if node.metadata_props:
        return ""
    users = [user for user, _ in node.outputs[0].uses()]
    return module_of(users[0]) if users else ""


def _strip_metadata(model: ir.Model) -> None:
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _strip_value(value)
    for node in model.graph:
        scopes = node.metadata_props.get(NAME_SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[NAME_SCOPES] = scopes
        node.doc_string = None
        for value in node.outputs:
            _strip_value(value)
            _forget_symbols(value)


def _strip_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
    if value.const_value is not None and value.const_value.name != value.name:
        value.const_value.name = value.name


def _forget_symbols(value: ir.Value) -> None:
    """Torch's symbols (`s33//2`) mean nothing outside the trace: such lengths become unknown."""
    import onnx_ir as ir

    if value.shape is not None:
        value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])


def _state(value: ir.Value, spec: TensorSpec) -> None:
    import onnx_ir as ir

    value.name = spec.name
    value.shape = ir.Shape(spec.shape)
