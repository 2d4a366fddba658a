"""Tables and code that the READMEs of repositories share."""

from __future__ import annotations

from collections.abc import Sequence

from segquant_trt.package.tensors import Batching
from segquant_trt.records import AxisRange, TensorSpec


def code(text: str) -> str:
    """Commands for a shell."""
    return f"```bash\n{text}\n```"


def tensor_table(tensors: Sequence[TensorSpec], batching: Batching) -> str:
    """One row per tensor, with the shape that the server wants; the last one is the output."""
    rows = ["| tensor | type | shape |", "|-|-|-|"]
    for spec in tensors:
        shape = [str(size) for size in spec.shape]
        if batching.axis is not None and batching.axis not in spec.shape:
            shape = [batching.axis, *shape]
        if not shape or (batching.axis is not None and len(shape) == 1):
            shape = [*shape, "1"]
        kind = " (output)" if spec is tensors[-1] else ""
        rows.append(f"| `{spec.name}`{kind} | {spec.dtype} | {', '.join(shape)} |")
    return "\n".join(rows)


def axis_table(axes: Sequence[AxisRange]) -> str:
    """One row per axis: the lengths that are allowed."""
    rows = ["| axis | from | to | in multiples of | typically |", "|-|-|-|-|-|"]
    for axis in axes:
        rows.append(
            f"| {axis.name} | {axis.minimum} | {axis.maximum} | {axis.multiple} | {axis.typical} |"
        )
    return "\n".join(rows)
