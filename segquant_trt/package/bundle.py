"""A repository for a bundle that runs on CPUs: Triton's Python backend and ONNX Runtime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from segquant_trt.backends.extremes import extremes
from segquant_trt.backends.widening import widen_int4
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.package.carried import carry_sources
from segquant_trt.package.config import bundle_config
from segquant_trt.package.example import (
    Array,
    example_inputs,
    one_sample,
    typical_shapes,
    write_arrays,
)
from segquant_trt.package.options import ServingOptions, name_of
from segquant_trt.package.readme import bundle_readme
from segquant_trt.package.repository import (
    CONFIG,
    EXAMPLE,
    README,
    VERSION,
    write_repository,
)
from segquant_trt.package.served.description import DESCRIPTION, GRAPHS, Description, ServedFile
from segquant_trt.package.served.sessions import PROBE, PROBE_SUMS
from segquant_trt.package.tensors import Batching, batching_of
from segquant_trt.records import Manifest
from segquant_trt.records.bundle_layout import PLAN, WEIGHTS, data_files
from segquant_trt.records.files import atomic_write_json, sha256_file

WIDENED = "widened.bin"

_MOST_BY_DEFAULT = 16


def package_bundle(
    bundle: Path,
    manifest: Manifest,
    out: Path,
    options: ServingOptions,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the repository `out` for a bundle whose files have been checked against its manifest.

    Returns what `packaged.json` says.

    Raises:
        SegQuantError: the bundle is for another runtime, an option does not fit it, or `out` is in
            the way or cannot be written.
    """
    if manifest.target != "onnxruntime":
        raise SegQuantError(
            f"{bundle} is for target '{manifest.target}'; the server's Python backend runs bundles "
            "for 'onnxruntime'",
            hint="compile the model with --target onnxruntime",
        )
    name = options.name or name_of(manifest.source)
    batching = batching_of(manifest.inputs, manifest.output)
    largest = _max_batch_size(manifest, batching, options)

    def fill(folder: Path) -> dict[str, Any]:
        _write_model(folder / name, bundle, manifest, batching, options, max_batch_size=largest)
        write_arrays(folder / EXAMPLE, _example(manifest))
        text = bundle_readme(name, manifest, batching, options, max_batch_size=largest)
        (folder / README).write_text(text, encoding="utf-8")
        return {
            "model": name,
            "backend": "python",
            "max_batch_size": largest,
            "bundle_sha256": manifest.provenance["manifest"],
            "versions": manifest.versions,
        }

    return write_repository(out, fill, sources=(bundle,), force=force)


def _max_batch_size(manifest: Manifest, batching: Batching, options: ServingOptions) -> int:
    asked = options.max_batch_size
    if batching.axis is None:
        if asked is not None:
            raise SegQuantError(
                "this model's inputs have no axis of samples; --max-batch-size does not fit",
                hint="leave it out",
            )
        return 0
    most = next((axis.maximum for axis in manifest.axes if axis.name == batching.axis), 1 << 16)
    if asked is not None and asked > most:
        raise SegQuantError(
            f"--max-batch-size {asked} is more than the {most} samples that the bundle takes",
            hint=f"give {most} or less, or leave it out",
        )
    return asked or min(most, _MOST_BY_DEFAULT)


def _write_model(
    folder: Path,
    bundle: Path,
    manifest: Manifest,
    batching: Batching,
    options: ServingOptions,
    *,
    max_batch_size: int,
) -> None:
    version = folder / VERSION
    version.mkdir(parents=True)
    carry_sources(version)
    _write_graphs(version / GRAPHS, bundle, manifest)
    _write_probe(version / GRAPHS)
    description = Description(
        inputs=manifest.inputs,
        output=manifest.output,
        axes=manifest.axes,
        batch_axis=batching.axis,
        shared=batching.shared,
        frozen=manifest.frozen,
        hoisted=manifest.hoisted,
        files=tuple(
            ServedFile(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)
            for path in sorted((version / GRAPHS).iterdir())
        ),
        onnxruntime=manifest.versions["onnxruntime"],
        bundle_sha256=manifest.provenance["manifest"],
    )
    atomic_write_json(version / DESCRIPTION, description.plain())
    warm_up = {}
    if options.warm_up and _takes_one_sample(manifest, batching):
        warm_up = one_sample(_example(manifest), batching)
        (folder / "warmup").mkdir()
        for name, array in warm_up.items():
            (folder / "warmup" / name).write_bytes(array.tobytes())
    text = bundle_config(
        folder.name,
        manifest,
        batching,
        options,
        max_batch_size=max_batch_size,
        warm_up=warm_up,
    )
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _example(manifest: Manifest) -> dict[str, Array]:
    shapes = typical_shapes(manifest.inputs, manifest.axes)
    timestep, frozen = manifest.timestep, manifest.frozen
    return example_inputs(manifest.inputs, shapes, timestep=timestep, frozen=frozen)


def _takes_one_sample(manifest: Manifest, batching: Batching) -> bool:
    """Whether a server's warm-up, which is of one sample, is a call that the model takes."""
    return all(axis.minimum == 1 for axis in manifest.axes if axis.name == batching.axis)


def _write_graphs(folder: Path, bundle: Path, manifest: Manifest) -> None:
    """The bundle's graphs and weights; four-bit codes that integer products read come as int8.

    No CPU kernel multiplies by packed codes, and a server without this package cannot widen them.
    """
    folder.mkdir()
    shutil.copyfile(bundle / WEIGHTS, folder / WEIGHTS)
    with (folder / WIDENED).open("wb") as stream:
        writer = PayloadWriter(stream, WIDENED, share=True)
        for name in data_files(manifest.frozen, manifest.hoisted):
            if name in (PLAN, WEIGHTS):
                continue
            model = load_graph(bundle / name)
            widened = widen_int4(model, bundle)
            if not widened:
                shutil.copyfile(bundle / name, folder / name)
                continue
            for tensor in model.graph.initializer:
                if tensor.name in widened:
                    tensor.CopyFrom(writer.put(tensor.name, widened[tensor.name]))
            (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    if not (folder / WIDENED).stat().st_size:
        (folder / WIDENED).unlink()


def _write_probe(folder: Path) -> None:
    """Sums that saturate on some processors, and what they must be."""
    probe = extremes(requantized=True)
    (folder / PROBE).write_bytes(probe.model.SerializeToString(deterministic=True))
    write_arrays(
        folder / PROBE_SUMS,
        {
            **{f"input:{name}": np.asarray(array) for name, array in probe.inputs.items()},
            **{f"sums:{name}": np.asarray(array) for name, array in probe.sums.items()},
            **{f"step:{name}": np.asarray(step) for name, step in probe.steps.items()},
        },
    )
