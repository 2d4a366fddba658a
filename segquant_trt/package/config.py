"""`config.pbtxt` of a bundle that the Python backend serves on CPUs."""

from __future__ import annotations

from collections.abc import Mapping

from segquant_trt.package.example import Array
from segquant_trt.package.options import ServingOptions, merges
from segquant_trt.package.pbtxt import Message, Word, entries, pbtxt
from segquant_trt.package.tensors import Batching, data_type, declaration
from segquant_trt.records import Manifest

LATEST: Message = {"latest": {"num_versions": 1}}


def bundle_config(
    name: str,
    manifest: Manifest,
    batching: Batching,
    options: ServingOptions,
    *,
    max_batch_size: int,
    warm_up: Mapping[str, Array],
) -> str:
    """The configuration's text.

    Args:
        name: of the model.
        manifest: of the bundle.
        batching: which inputs have a row per sample.
        options: what the user chose.
        max_batch_size: samples in one batch; 0: the server does not batch.
        warm_up: inputs of one sample, whose bytes are in the model's folder; empty: none.
    """
    hoisted = manifest.hoisted is not None
    together = merges(options, hoisted=hoisted, max_batch_size=max_batch_size)
    message = {
        "name": name,
        "backend": "python",
        "max_batch_size": max_batch_size,
        "input": [declaration(spec, batching) for spec in manifest.inputs],
        "output": [declaration(manifest.output, batching)],
        "version_policy": LATEST,
        "instance_group": {"count": options.instances, "kind": Word("KIND_CPU")},
        "dynamic_batching": batcher(options) if together else None,
        "parameters": entries(
            {
                "threads": {"string_value": str(options.threads)},
                "kept_prompts": {"string_value": str(options.kept_prompts)},
            }
        ),
        "model_warmup": _warm_up(manifest, max_batch_size, warm_up) if warm_up else None,
    }
    return pbtxt(message)


def batcher(options: ServingOptions) -> Message:
    """Requests that wait together are computed together; with no delay none waits for others."""
    return {"max_queue_delay_microseconds": options.queue_delay_us}


def _warm_up(manifest: Manifest, max_batch_size: int, arrays: Mapping[str, Array]) -> Message:
    return {
        "name": "typical sizes",
        "batch_size": min(max_batch_size, 1),
        "inputs": entries(
            {
                spec.name: {
                    "data_type": data_type(spec),
                    "dims": list(arrays[spec.name].shape) or [1],
                    "input_data_file": spec.name,
                }
                for spec in manifest.inputs
            }
        ),
    }
