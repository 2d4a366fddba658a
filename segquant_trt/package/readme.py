"""The README of a repository that serves a bundle on CPUs."""

from __future__ import annotations

from segquant_trt.package.markdown import axis_table, code, tensor_table
from segquant_trt.package.options import ServingOptions, merges
from segquant_trt.package.repository import CLIENT, EXAMPLE, VERSION
from segquant_trt.package.server_image import PORTS, SERVER_IMAGE
from segquant_trt.package.tensors import Batching
from segquant_trt.records import HoistedPrompt, Manifest


def bundle_readme(
    name: str,
    manifest: Manifest,
    batching: Batching,
    options: ServingOptions,
    *,
    max_batch_size: int,
) -> str:
    """The text, in Markdown."""
    runtime = manifest.versions["onnxruntime"]
    parts = (
        f"# {name}: a Triton model repository",
        f"It serves a quantised denoiser (`{manifest.class_name}`, compiled from "
        f"`{manifest.source}`) on CPUs: Triton's Python backend runs "
        f"`{name}/{VERSION}/model.py`, which needs NumPy and ONNX Runtime and nothing else.",
        "## Run it",
        code(
            f"docker run --rm --shm-size 1g {PORTS} \\\n"
            f'    -v "$PWD":/models:ro {SERVER_IMAGE} \\\n'
            f"    bash -c 'pip install onnxruntime=={runtime} && "
            "tritonserver --model-repository=/models'"
        ),
        "or, with a `tritonserver` that has the Python backend, and with "
        f"`onnxruntime=={runtime}` installed for its Python:",
        code('tritonserver --model-repository="$PWD"'),
        "Then, from anywhere (`--protocol grpc` for the other port):",
        code(f"pip install 'tritonclient[all]'\npython {CLIENT} --protocol http"),
        f"`{CLIENT}` sends `{EXAMPLE}`; `Denoiser` in it is a client for your own code. It "
        "takes the arrays that the denoiser itself takes.",
        "## Inputs and output",
        tensor_table((*manifest.inputs, manifest.output), batching),
        axis_table(manifest.axes),
        *_shared(batching, max_batch_size),
        "Anything else is refused by name; the server goes on.",
        "## What is served",
        *_graphs(manifest, options),
        *_batches(manifest, options, max_batch_size),
        f"Answers are those of `segquant_trt.load(bundle).run(...)`, to the bit, where ONNX "
        f"Runtime is {runtime} and the processor the same. The model is checked against its "
        "sha256 when it is loaded.",
        _tuning(options),
        "## When something dies",
        f"The model runs in processes of its own. Triton (seen with 2.51) does not start one again "
        "that was killed, for want of memory say: it goes on answering 'ready', and every request "
        f"for this model with an error. So probe with a request (`python {CLIENT}` has exit status "
        "1 where it fails), and restart the server. A server that was killed leaves files in "
        "`/dev/shm` (a container's go with it; `triton_python_backend_shm_region_*`): remove them "
        "where no other server runs.",
    )
    return "\n\n".join(parts) + "\n"


def _shared(batching: Batching, max_batch_size: int) -> list[str]:
    if not max_batch_size:
        return ["The server does not batch: shapes are those of the denoiser itself."]
    found = [f"One request has at most {max_batch_size} samples."]
    if batching.shared:
        names = ", ".join(f"`{name}`" for name in batching.shared)
        found.append(
            f"The denoiser shares {names} between samples. A server that batches wants a row per "
            f"sample: send the same one for each (`{CLIENT}` does)."
        )
    return found


def _prompts(hoisted: HoistedPrompt, options: ServingOptions) -> str:
    names = ", ".join(f"`{name}`" for name in hoisted.inputs)
    if not options.kept_prompts:
        return (
            f"What {names} alone decide is computed by `prompt.onnx` at every request: nothing is "
            "kept between requests. `--kept-prompts 8` computes it once for each of the last eight "
            "prompts, and then puts no requests into common batches."
        )
    return (
        f"What {names} alone decide is computed by `prompt.onnx` once per prompt, and every "
        f"instance remembers it for the last {options.kept_prompts} prompts, by content: no answer "
        "depends on what was asked before. Requests are therefore not put into common batches."
    )


def _graphs(manifest: Manifest, options: ServingOptions) -> list[str]:
    frozen, hoisted = manifest.frozen, manifest.hoisted
    found = []
    if frozen is not None:
        other = (
            "any other runs `fallback.onnx`, which is opened (and takes its memory) when the first "
            "such request comes"
            if frozen.fallback
            else "any other is an error that lists the steps"
        )
        found.append(
            f"Frozen to the {len(frozen.timesteps)} timesteps of `{frozen.schedule}`: "
            f"requests at these read tables, {other}. A request with a sample at another step "
            "goes there as a whole, and takes no other request with it."
        )
    if hoisted is not None:
        found.append(_prompts(hoisted, options))
    return found or ["One graph, `model.onnx`, for all timesteps and prompts."]


def _batches(manifest: Manifest, options: ServingOptions, max_batch_size: int) -> list[str]:
    hoisted = manifest.hoisted is not None
    if not merges(options, hoisted=hoisted, max_batch_size=max_batch_size):
        return ["Every request is computed on its own, one after the other in each instance."]
    return [
        "Requests that wait are computed in one batch where their sizes and shared inputs agree "
        f"(dynamic batching, delay {options.queue_delay_us} us). Kernels may be chosen by batch "
        "size, so that a sample's last bits can depend on its batch; on the processors that we "
        "tried they do not. `--no-dynamic-batching` rules it out."
    ]


def _tuning(options: ServingOptions) -> str:
    threads = "all cores" if not options.threads else f"{options.threads} thread(s)"
    return (
        f"{options.instances} instance(s) with {threads} each. More instances of fewer threads "
        "(`--instances`, `--threads`) hold the model as many times, and compute as many requests "
        "at a time."
    )
