"""Fold what depends on constants alone, and leave every node that a weight feeds.

| before                               | after                                  |
|--------------------------------------|----------------------------------------|
| Constant chains, CastLike, Identity  | one initializer or nothing             |
| SplitToSequence, SequenceAt          | Split                                  |
| weight -> Transpose -> MatMul        | unchanged: weights are never read here |
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_FOLDED_ELEMENTS = 1 << 20


def hide_weights(model: ir.Model) -> frozenset[str]:
    """Take the fake values off the initializers and return their names, the state-dict names."""
    names = set()
    for value in model.graph.initializers.values():
        if _is_fake(value.const_value):
            value.const_value = None
            names.add(value.name or "")
    return frozenset(names)


def fold(model: ir.Model) -> None:
    """Fold constants, remove what is unused, make constants initializers, merge equal nodes."""
    import onnx_ir.passes.common as common
    from onnx_ir.passes import Sequential
    from onnxscript.optimizer import fold_constants_ir

    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    common.InlinePass()(model)
    fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=_FOLDED_ELEMENTS,
        output_size_limit=_FOLDED_ELEMENTS,
    )
    Sequential(
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    )(model)


def _is_fake(tensor: object) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(getattr(tensor, "raw", None), FakeTensor)
