"""Drop what only people and analyses read in a graph: module scopes and notes on where it is from.

`value_info` stays: ONNX Runtime's own shape inference knows less than the exporter did. Without
it, it does not see that the slices of an attention's heads are one Split (FLUX: 101 Slices and 36
Splits become 137 and 18).
"""

from __future__ import annotations

import onnx

_OURS = "segquant_trt."


def drop_annotations(model: onnx.ModelProto) -> None:
    """Drop doc strings, and metadata of nodes that is not this package's own, in place."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        kept = [entry for entry in node.metadata_props if entry.key.startswith(_OURS)]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
