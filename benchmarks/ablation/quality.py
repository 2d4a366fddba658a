"""Quality of any denoiser of a zoo model, under the conditions of the verify stage.

    python -m benchmarks.ablation.quality RUN [--bundle BUNDLE]

prints the figures of a bundle (by default the run's own): those of its quality.json, and the
standard error of the latent figure.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.ablation.subject import Subject
from segquant_trt.backends.denoise import float_denoise
from segquant_trt.models.judge import open_judge
from segquant_trt.models.loop import Array, Denoise, Float32
from segquant_trt.models.zoo_loop import GUIDANCE_SCALE, ZooLoop
from segquant_trt.records import CheckpointLocation, Quality
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import atomic_write_bytes, sha256_file
from segquant_trt.verify.float16 import with_float16_activations
from segquant_trt.verify.free_running import Sampling
from segquant_trt.verify.quality import Denoisers, Verification, verify_loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The verify stage's own: seeds that calibration has not seen, 200 images to be judged."""

    first_seed: int = 1_000_000
    seeds: int = 64
    judged: int = 200
    steps: int = 20
    guidance_scale: float = GUIDANCE_SCALE
    batch_size: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one denoiser; decibels against the float model. `_stderr` is over the seeds.

    Those of images that were not judged are None.
    """

    sqnr_db_mean: float
    sqnr_db_worst: float
    latent_sqnr_db: float
    latent_sqnr_db_stderr: float
    latent_sqnr_db_float16: float
    psnr_db: float
    ssim: float
    classifier_accuracy: float | None
    classifier_accuracy_float: float | None
    frechet_distance: float | None
    frechet_distance_float: float | None


class Examiner:
    """Examines denoisers of one model; the float model's answers are computed once and kept.

    Args:
        subject: the model.
        memory: where the float model's answers are kept between processes; None: nowhere.
        threads: of the float model's runtime; all cores when None.
    """

    def __init__(
        self,
        subject: Subject,
        memory: Path | None = None,
        conditions: Conditions | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        self._subject = subject
        self._conditions = conditions or Conditions()
        location = read_record(subject.run / "model.location.yaml", CheckpointLocation)
        assert location.pipeline_folder is not None
        self._loop = ZooLoop(Path(location.pipeline_folder))
        self._judge = open_judge(subject.spec)
        self._answers = Answers(memory / _memory_name(subject) if memory else None)
        graph = subject.run / "model.onnx"

        def half() -> Denoise:
            from segquant_trt.graph.bigfile import load_graph

            rounded = with_float16_activations(load_graph(graph), subject.facts)
            return float_denoise(rounded, subject.weights, threads=threads)

        self._reference = self._answers.of(
            "float", lambda: float_denoise(graph, subject.weights, threads=threads)
        )
        self._float16 = self._answers.of("float16", half)

    def warm_up(self) -> None:
        """Ask the float model all that any examination will ask it."""
        self.quality(self._reference)

    def figures(self, denoise: Denoise, *, judged: bool = True) -> Figures:
        """Examine one denoiser; its images are classified if `judged`."""
        quality = self.quality(denoise, judged=judged)
        return Figures(**{name: getattr(quality, name) for name in Figures.__dataclass_fields__})

    def quality(self, denoise: Denoise, *, judged: bool = True) -> Quality:
        """What verify would write into quality.json, without what it tells of single sites."""
        at = self._conditions
        seeds = tuple(at.first_seed + i for i in range(max(at.judged, at.seeds)))
        quality, _ = verify_loop(
            self._loop,
            Denoisers(reference=self._reference, quantized=denoise, float16=self._float16),
            Verification(
                seeds=seeds[: at.seeds],
                judged_seeds=seeds,
                sampling=Sampling(
                    steps=at.steps, guidance_scale=at.guidance_scale, batch_size=at.batch_size
                ),
                timestep=self._subject.spec.timestep,
                manifest_sha256="",
            ),
            judge=self._judge if judged else None,
            on_progress=lambda label, done, total: None,
        )
        self._answers.keep()
        return quality


class Answers:
    """Answers of denoisers by the content of their inputs, kept in an .npz file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Float32] = {}
        self._fresh = False
        if path is not None and path.exists():
            with np.load(path) as stored:
                self._known = dict(stored)

    def of(self, label: str, make: Callable[[], Denoise]) -> Denoise:
        """The denoiser that `make` opens, which is asked only what it was not asked before."""
        opened: list[Denoise] = []

        def denoise(inputs: Mapping[str, Array]) -> Float32:
            key = f"{label}-{_digest(inputs)}"
            if key not in self._known:
                if not opened:
                    opened.append(make())
                self._known[key] = opened[0](inputs)
                self._fresh = True
            return self._known[key]

        return denoise

    def keep(self) -> None:
        """Write what is new."""
        if self._path is not None and self._fresh:
            stream = io.BytesIO()
            np.savez(stream, **self._known)
            atomic_write_bytes(self._path, stream.getvalue())
            self._fresh = False


def _memory_name(subject: Subject) -> str:
    """Unique to graph, weights (an outlier twin has its base's graph) and runtime."""
    import onnxruntime

    files = (subject.run / "model.onnx", *sorted(subject.weights.glob("*.safetensors")))
    parts = [sha256_file(file) for file in files]
    key = hashlib.sha256("".join([*parts, onnxruntime.__version__]).encode()).hexdigest()
    return f"float-answers-{key[:16]}.npz"


def _digest(inputs: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def main() -> None:
    """Examine a bundle."""
    from segquant_trt.serve import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder of segquant-trt compile")
    parser.add_argument("--bundle", type=Path, help="by default the bundle in the run folder")
    arguments = parser.parse_args()
    bundle = load(arguments.bundle or arguments.run / "bundle")
    print(json.dumps(asdict(Examiner(Subject.of(arguments.run)).figures(bundle.run)), indent=2))


if __name__ == "__main__":
    main()
