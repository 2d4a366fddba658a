"""The largest magnitude of every tensor, for targets that compute in float16: measured once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from segquant_trt.backends import backend_for
from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import atomic_write_json, digest_of, sha256_file

if TYPE_CHECKING:
    from segquant_trt.records import Target
    from segquant_trt.records.stage import Work

_FILE = "largest.json"
_BATCH = 16


def magnitudes(work: Work, target: Target) -> Mapping[str, float] | None:
    """By tensor of the float graph, over the excerpt of the inputs; None where nobody asks.

    Kept in the run folder for later plans of the same graph and excerpt.

    Raises:
        SegQuantError: the excerpt or the graph cannot be read.
    """
    from segquant_trt.graph.bigfile import load_graph
    from segquant_trt.records.recordings import open_recordings
    from segquant_trt.rewrite.half import largest_values

    if backend_for(target).placement.float_type == "float32":
        return None
    excerpt, path = work.run / "excerpt.safetensors", work.run / _FILE
    if not excerpt.exists():
        raise SegQuantError(
            f"{excerpt} is missing: '{target}' computes in float16, and what exceeds it is looked "
            "for in recorded inputs",
            hint="run 'segquant-trt calibrate' on this model again",
        )
    key = digest_of([work.spec().onnx_sha256, work.spec().checkpoint_sha256, sha256_file(excerpt)])
    known = _known(path.read_text()) if path.exists() else {}
    if key in known:
        return {name: float(value) for name, value in known[key].items()}
    found = largest_values(
        load_graph(work.run / "model.onnx"),
        work.weights(),
        open_recordings(excerpt, work.spec()).batches(_BATCH),
        threads=work.options.threads,
        on_progress=work.update("look for what exceeds float16"),
    )
    atomic_write_json(path, {key: {name: str(value) for name, value in found.items()}})
    return found


def _known(text: str) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
