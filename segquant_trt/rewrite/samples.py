"""Where samples lie that have timesteps of their own."""

from __future__ import annotations

from pathlib import Path

import onnx

from segquant_trt.backends.emission import Structure
from segquant_trt.records import GraphFacts


def samples_elsewhere(model: onnx.ModelProto, folder: Path, facts: GraphFacts) -> frozenset[str]:
    """Activations whose first axis is known not to be that of the timestep's samples.

    Factors per step cannot be emitted for them.

    Args:
        model: the float graph.
        folder: where its external data is; sizes and axes may be there.
        facts: of this graph.
    """
    if facts.timestep is None:
        return frozenset()
    structure = Structure(model, folder)
    tensors = {site.activation for site in facts.sites}
    return frozenset(
        tensor for tensor in tensors if structure.samples_elsewhere(tensor, facts.timestep)
    )
