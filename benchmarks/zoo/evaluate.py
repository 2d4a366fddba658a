"""Judge the shipped models: `python benchmarks/zoo/evaluate.py`, some ten minutes on one core.

Prints the acceptance figures, writes benchmarks/results/zoo.json and the README's sample sheet.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import load_split
from site_statistics import site_statistics

from segquant_trt.models.zoo import (
    ZOO,
    ZooLoop,
    ZooSamples,
    frechet_reference,
    load_classifier,
    torch_denoise,
    zoo_path,
)
from segquant_trt.records.files import atomic_write_json, sha256_file

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "zoo.json"
BASES = tuple(name for name in ZOO if not name.endswith("-outliers"))
STEPS, GUIDANCE = 20, 3.5
ACCEPTANCE = {"accuracy": 0.95, "worst_class_accuracy": 0.85, "nearest_distance_ratio": 0.7}


def generation_figures(samples: ZooSamples) -> dict[str, Any]:
    """Classifier accuracy, Frechet distance, and distance to the training images."""
    predicted, features = load_classifier().predict(samples.images)
    right = predicted == np.array(samples.labels)
    classes = [float(right[np.array(samples.labels) == digit].mean()) for digit in range(10)]
    training, held_out = load_split()
    ours = nearest_distances(samples.images, training.images.numpy()[:, 0])
    theirs = nearest_distances(held_out.images.numpy()[:, 0], training.images.numpy()[:, 0])
    return {
        "samples": len(samples.images),
        "accuracy": round(float(right.mean()), 4),
        "worst_class_accuracy": round(min(classes), 4),
        "class_accuracy": [round(value, 4) for value in classes],
        "nearest_distance_ratio": round(float(np.median(ours) / np.median(theirs)), 4),
        "frechet_distance": round(frechet_distance(features, *frechet_reference()), 3),
    }


def nearest_distances(images: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Euclidean pixel distance float32[N] of each image to the closest training image."""
    flat = torch.from_numpy(np.ascontiguousarray(images.reshape(len(images), -1)))
    others = torch.from_numpy(np.ascontiguousarray(training.reshape(len(training), -1)))
    return torch.cdist(flat, others).amin(dim=1).numpy()


def frechet_distance(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Heusel et al., 1706.08500, equation 6; tr sqrt(AB) from the eigenvalues of AB."""
    ours = np.cov(features.astype(np.float64), rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(ours @ covariance).real.clip(0.0))
    gap = features.astype(np.float64).mean(axis=0) - mean
    return float(gap @ gap + np.trace(ours + covariance) - 2.0 * roots.sum())


def twin_sqnr_db(base: Path, twin: Path) -> float:
    """Worst SQNR of the twin's prediction against the base model's, over six timesteps."""
    loop = ZooLoop(base)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((20, *loop.latent_shape)).astype(np.float32)
    figures = []
    for time in (20.0, 200.0, 400.0, 600.0, 800.0, 980.0):
        inputs = loop.inputs(latents, time, [i % 10 for i in range(20)])
        reference, other = (torch_denoise(f)(inputs).astype(np.float64) for f in (base, twin))
        noise = np.square(reference - other).sum()
        figures.append(10.0 * np.log10(np.square(reference).sum() / noise))
    return round(float(min(figures)), 1)


def sample_sheet(samples: dict[str, ZooSamples], path: Path) -> None:
    """Four rows of ten digits per model, dark ink on white."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(samples), figsize=(10.2, 1.75), layout="constrained")
    for axis, (name, drawn) in zip(axes, samples.items(), strict=True):
        tiles = np.pad(drawn.images[:40], ((0, 0), (1, 1), (1, 1)))
        sheet = tiles.reshape(4, 10, 18, 18).transpose(0, 2, 1, 3).reshape(72, 180)
        axis.imshow(sheet, cmap="gray_r", vmin=0.0, vmax=1.0, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def hardware() -> dict[str, Any]:
    """Processor and versions; nothing that names this machine."""
    import diffusers
    import onnxruntime

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((li.split(":", 1)[1].strip() for li in lines if li.startswith("model name")), "")
    return {
        "processor": model or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=BASES, default=BASES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models: dict[str, Any] = {}
    drawn: dict[str, ZooSamples] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in arguments.models:
            base, twin = zoo_path(name), zoo_path(name + "-outliers", Path(cache))
            drawn[name] = ZooLoop(base).sample(
                torch_denoise(base),
                seeds=range(arguments.samples),
                steps=STEPS,
                guidance_scale=GUIDANCE,
            )
            figures = generation_figures(drawn[name])
            models[name] = {
                "weights_sha256": sha256_file(next(base.glob("*/*.safetensors"))),
                **figures,
                "accepted": all(figures[key] >= least for key, least in ACCEPTANCE.items()),
                "twin_sqnr_db": twin_sqnr_db(base, twin),
                "sites": site_statistics(base),
                "twin_sites": site_statistics(twin),
            }
            shown = {k: v for k, v in models[name].items() if "sites" not in k}
            print(json.dumps({name: shown}, indent=1), flush=True)
    if len(models) == len(BASES):
        settings = {"steps": STEPS, "guidance_scale": GUIDANCE, "acceptance": ACCEPTANCE}
        atomic_write_json(RESULTS, {"hardware": hardware(), **settings, "models": models})
        sample_sheet(drawn, HERE / "samples.png")


if __name__ == "__main__":
    main()
