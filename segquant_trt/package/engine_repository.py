"""A repository for TensorRT engines. No step of this has met a GPU: see `engine_readme`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.package.engine_config import engine_config, plan_names
from segquant_trt.package.engine_readme import engine_readme
from segquant_trt.package.engines import EnginePackage, batching, check_package, largest_batch
from segquant_trt.package.example import example_inputs, write_arrays
from segquant_trt.package.options import ServingOptions
from segquant_trt.package.repository import CONFIG, EXAMPLE, README, VERSION, write_repository

PLUGINS = "plugins"


def package_engines(
    package: EnginePackage, out: Path, options: ServingOptions, *, force: bool = False
) -> dict[str, Any]:
    """Write the repository `out`, which owns copies of all files; returns `packaged.json`.

    The name is the package's, and the largest batch that of its widest profile; options of the
    CPU's runtime have no meaning here.

    Raises:
        SegQuantError: a file is missing or altered, capabilities or profiles do not fit, or `out`
            is in the way or cannot be written.
    """
    check_package(package)
    _check_options(options)
    sources = (*(engine.path for engine in package.engines), *package.plugin_libraries)

    def fill(folder: Path) -> dict[str, Any]:
        model = folder / package.name
        (model / VERSION).mkdir(parents=True)
        names = plan_names(package)
        for engine in package.engines:
            plan = names[engine.compute_capabilities[0]]
            shutil.copyfile(engine.path, model / VERSION / plan)
        for library in package.plugin_libraries:
            (model / PLUGINS).mkdir(exist_ok=True)
            shutil.copyfile(library, model / PLUGINS / library.name)
        (model / CONFIG).write_text(engine_config(package, options), encoding="utf-8")
        shapes = dict(package.profiles[0].optimum)
        example = example_inputs(package.inputs, shapes, timestep=package.timestep)
        write_arrays(folder / EXAMPLE, example)
        (folder / README).write_text(engine_readme(package, options), encoding="utf-8")
        return {
            "model": package.name,
            "backend": "tensorrt",
            "max_batch_size": largest_batch(package, batching(package).axis),
            "engines": {
                capability: engine.sha256
                for engine in package.engines
                for capability in engine.compute_capabilities
            },
            "versions": {"tensorrt": package.tensorrt_version},
        }

    return write_repository(out, fill, sources=sources, force=force)


def _check_options(options: ServingOptions) -> None:
    plain = ServingOptions()
    for name in ("max_batch_size", "threads", "kept_prompts"):
        if getattr(options, name) != getattr(plain, name):
            raise SegQuantError(
                f"--{name.replace('_', '-')} has no meaning for engines: their profiles say what "
                "they take, and they run on a GPU",
                hint="leave it out",
            )
