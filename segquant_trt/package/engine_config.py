"""`config.pbtxt` of engines that Triton's TensorRT backend serves."""

from __future__ import annotations

from segquant_trt.package.config import LATEST, batcher
from segquant_trt.package.engines import EnginePackage, EngineProfile, batching, largest_batch
from segquant_trt.package.options import ServingOptions
from segquant_trt.package.pbtxt import Message, Word, entries, pbtxt
from segquant_trt.package.tensors import Batching, data_type, declaration, sizes_of
from segquant_trt.records import TensorSpec


def engine_config(package: EnginePackage, options: ServingOptions) -> str:
    """The configuration's text, for a package that has been checked.

    There is no `model.plan`: a GPU whose compute capability is not listed gets an error, and never
    an engine for another one.
    """
    batched = batching(package)
    largest = largest_batch(package, batched.axis)
    merges = options.dynamic_batching and largest > 1
    return pbtxt(
        {
            "name": package.name,
            "platform": "tensorrt_plan",
            "backend": "tensorrt",
            "max_batch_size": largest,
            "input": [declaration(spec, batched) for spec in package.inputs],
            "output": [declaration(package.output, batched)],
            "version_policy": LATEST,
            "cc_model_filenames": entries(plan_names(package)),
            "instance_group": {
                "count": options.instances,
                "kind": Word("KIND_GPU"),
                "profile": [str(index) for index in range(len(package.profiles))],
            },
            "dynamic_batching": _batcher(package, options) if merges else None,
            "optimization": {"cuda": _graphs(package, batched)} if package.cuda_graphs else None,
            "model_warmup": [
                _warm_up(package, batched, index) for index in range(len(package.profiles))
            ]
            if options.warm_up
            else None,
        }
    )


def plan_names(package: EnginePackage) -> dict[str, str]:
    """The engine's file name by compute capability."""
    return {
        capability: f"sm{engine.compute_capabilities[0].replace('.', '')}.plan"
        for engine in package.engines
        for capability in engine.compute_capabilities
    }


def _batcher(package: EnginePackage, options: ServingOptions) -> Message:
    """Batches that a profile favours are sent off at once; others wait for the delay."""
    favoured = sorted({_samples(package, profile) for profile in package.profiles})
    return {"preferred_batch_size": favoured, **batcher(options)}


def _samples(package: EnginePackage, profile: EngineProfile) -> int:
    return profile.optimum[package.inputs[0].name][0]


def _graphs(package: EnginePackage, batched: Batching) -> Message:
    """One graph per profile and batch: as favoured, and one sample (a step without guidance)."""
    specs: list[Message] = []
    for profile in package.profiles:
        lowest = profile.minimum[package.inputs[0].name][0]
        sizes = {lowest, _samples(package, profile)} if batched.axis is not None else {0}
        shapes: dict[str, object] = {
            spec.name: {"dim": list(_one_sample(profile, spec, batched))} for spec in package.inputs
        }
        specs += [{"batch_size": size, "input": entries(shapes)} for size in sorted(sizes)]
    return {"graphs": True, "graph_spec": specs}


def _warm_up(package: EnginePackage, batched: Batching, index: int) -> Message:
    profile = package.profiles[index]
    return {
        "name": f"profile {index}",
        "batch_size": 0 if batched.axis is None else _samples(package, profile),
        "inputs": entries(
            {
                spec.name: {
                    "data_type": data_type(spec),
                    "dims": list(_one_sample(profile, spec, batched)) or [1],
                    "random_data" if "float" in spec.dtype else "zero_data": True,
                }
                for spec in package.inputs
            }
        ),
    }


def _one_sample(profile: EngineProfile, spec: TensorSpec, batched: Batching) -> tuple[int, ...]:
    shape = profile.optimum[spec.name]
    return shape[len(shape) - len(sizes_of(spec, batched)) :]
