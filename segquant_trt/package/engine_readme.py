"""The README of a repository that serves TensorRT engines."""

from __future__ import annotations

from segquant_trt.package.engines import EnginePackage, EngineProfile, batching, largest_batch
from segquant_trt.package.markdown import code, tensor_table
from segquant_trt.package.options import ServingOptions
from segquant_trt.package.repository import CLIENT, EXAMPLE, VERSION
from segquant_trt.package.server_image import PORTS, SERVER_IMAGE

_MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/"


def engine_readme(package: EnginePackage, options: ServingOptions) -> str:
    """The text, in Markdown."""
    batched = batching(package)
    largest = largest_batch(package, batched.axis)
    listed = ", ".join(
        f"{', '.join(engine.compute_capabilities)} ({engine.path.name})"
        for engine in package.engines
    )
    flags = server_flags(package, root="/models")
    command = " \\\n        ".join(["tritonserver --model-repository=/models", *flags])
    parts = (
        f"# {package.name}: a Triton model repository",
        f"It serves TensorRT {package.tensorrt_version} engines of `{package.source}` for GPUs of "
        f"compute capability {listed}. The server picks the file by its GPU; on any other GPU the "
        f"model does not load, because there is no `{VERSION}/model.plan` to fall back to.",
        "> This configuration was checked against the server's own format. It was not run with "
        "TensorRT by the authors of segquant-trt.",
        "## Run it",
        code(
            f"IMAGE={SERVER_IMAGE}\n"
            f'docker run --rm --gpus all --shm-size 1g {PORTS} -v "$PWD":/models:ro $IMAGE \\\n'
            f"    {command}"
        ),
        _versions(package),
        *_one_model(package),
        *_plugins(package),
        code(f"pip install 'tritonclient[all]'\npython {CLIENT} --protocol grpc"),
        f"`{CLIENT}` sends `{EXAMPLE}`; `Denoiser` in it is a client for your own code.",
        "## Inputs and output",
        tensor_table((*package.inputs, package.output), batched),
        _profile_table(package),
        _batches(options, largest),
        f"{options.instances} instance(s) per GPU, each with one execution context per profile: "
        "memory for activations is taken once for every context.",
        *_graphs(package),
    )
    return "\n\n".join(parts) + "\n"


def server_flags(package: EnginePackage, *, root: str) -> list[str]:
    """What `tritonserver` must be started with, for a repository that it sees at `root`."""
    flags = []
    if package.plugin_libraries:
        paths = (f"{root}/{package.name}/plugins/{path.name}" for path in package.plugin_libraries)
        flags.append(f'--backend-config=tensorrt,plugins="{";".join(paths)}"')
    if package.version_compatible:
        flags.append("--backend-config=tensorrt,version-compatible=true")
    return flags


def _versions(package: EnginePackage) -> str:
    if package.version_compatible:
        return (
            f"The image must hold TensorRT {package.tensorrt_version} or a later one of the same "
            f"major version ({_MATRIX}). Version-compatible engines carry code that the server "
            "runs: serve only those that you built yourself."
        )
    return (
        f"The image must hold exactly TensorRT {package.tensorrt_version} ({_MATRIX}); engines "
        "load nowhere else."
    )


def _plugins(package: EnginePackage) -> list[str]:
    if not package.plugin_libraries:
        return []
    names = ", ".join(f"`{path.name}`" for path in package.plugin_libraries)
    return [
        f"Without its flag, {names} is not loaded; a library that fails to load is only logged, "
        "and the engine is then refused. `LD_PRELOAD` with its path does the same as the flag."
    ]


def _one_model(package: EnginePackage) -> list[str]:
    """Engines that the server would pick by capability alone, and that fit one GPU model."""
    bound = [engine for engine in package.engines if engine.gpu is not None]
    if not bound:
        return []
    listed = ", ".join(f"{engine.path.name} on {engine.gpu}" for engine in bound)
    return [
        f"Built for one model of GPU: {listed}. On another of the same capability TensorRT may "
        "refuse it, or run it slower; `--hardwareCompatibilityLevel` builds engines for several."
    ]


def _profile_table(package: EnginePackage) -> str:
    rows = ["| profile | input | smallest | favoured | largest |", "|-|-|-|-|-|"]
    for index, profile in enumerate(package.profiles):
        rows += [_row(index, profile, spec.name) for spec in package.inputs]
    return "\n".join(rows)


def _row(index: int, profile: EngineProfile, name: str) -> str:
    shapes = (
        "x".join(map(str, bound[name])) or "1"
        for bound in (profile.minimum, profile.optimum, profile.maximum)
    )
    return f"| {index} | `{name}` | {' | '.join(shapes)} |"


def _batches(options: ServingOptions, largest: int) -> str:
    if not largest:
        return (
            "The server does not batch, because samples share an input: shapes are those of the "
            "denoiser itself, batch and all."
        )
    if not options.dynamic_batching or largest < 2:
        return f"One request has at most {largest} samples, and is computed on its own."
    return (
        f"One request has at most {largest} samples. Requests that wait are computed in one batch "
        f"where their sizes agree (dynamic batching, delay {options.queue_delay_us} us)."
    )


def _graphs(package: EnginePackage) -> list[str]:
    if not package.cuda_graphs:
        return []
    return [
        "The server captures CUDA graphs for the favoured shapes of every profile, at the favoured "
        "and the smallest batch; other shapes run without one."
    ]
