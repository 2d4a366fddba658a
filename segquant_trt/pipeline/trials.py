"""Plans at work on trial seeds: each is rewritten, opened and run beside the float model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segquant_trt.backends import backend_for
from segquant_trt.backends.denoise import float_denoise
from segquant_trt.backends.emission import StoredArrays
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models.loop import Array, Denoise, DenoisingLoop, Float32
from segquant_trt.pipeline.magnitudes import magnitudes
from segquant_trt.pipeline.sampling import STEPS, batch_size_of, guidance_of
from segquant_trt.plan import Candidate, decisions_sha256
from segquant_trt.records.recordings import open_recordings
from segquant_trt.records.scratch import scratch_folder
from segquant_trt.records.trials import Trial
from segquant_trt.rewrite import rewrite
from segquant_trt.verify import sqnr_db
from segquant_trt.verify.free_running import Sampling, sample

if TYPE_CHECKING:
    from segquant_trt.records.stage import Work

_BATCH = 16


class Calls:
    """A denoiser that remembers its calls and answers: what others are asked again."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self.made: list[tuple[dict[str, Array], Float32]] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Float32:
        """Answer, and remember both."""
        before = self.made[-1][0] if self.made else {}
        answer = self._denoise(inputs)
        self.made.append(({name: _kept(x, before.get(name)) for name, x in inputs.items()}, answer))
        return answer

    def sqnr_db(self, denoise: Denoise, timestep: str | None) -> tuple[float, list[float]]:
        """SQNR of another denoiser's answers: mean over timesteps, and of every sample in turn."""
        samples: list[float] = []
        steps: defaultdict[float, list[float]] = defaultdict(list)
        for inputs, reference in self.made:
            decibels = sqnr_db(reference, denoise(inputs))
            times = 0.0 if timestep is None else np.ravel(inputs[timestep])
            for time, value in zip(np.broadcast_to(times, len(decibels)), decibels, strict=True):
                steps[float(time)].append(float(value))
            samples.extend(decibels.tolist())
        return float(np.mean([np.mean(values) for values in steps.values()])), samples


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRun:
    """The float model's own run: its calls, and from a loop the latents that they ended in."""

    calls: Calls
    loop: DenoisingLoop | None
    seeds: tuple[int, ...]
    sampling: Sampling
    latents: Float32 | None = field(repr=False)


def float_run(work: Work, loop: DenoisingLoop | None, seeds: Sequence[int]) -> FloatRun:
    """Run the float model: along trajectories of `seeds`, else on the calibration's excerpt."""
    calls = Calls(
        float_denoise(
            work.run / "model.onnx", work.weights(), threads=work.options.threads, lean=True
        )
    )
    sampling = Sampling(
        steps=work.options.steps or STEPS,
        guidance_scale=guidance_of(work),
        batch_size=batch_size_of(work),
    )
    latents = None
    if loop is None:
        excerpt = open_recordings(work.run / "excerpt.safetensors", work.spec())
        for batch in excerpt.batches(_BATCH):
            calls(batch)
    else:
        latents = sample(loop, calls, seeds, sampling, work.update("float trajectories")).latents
    return FloatRun(calls=calls, loop=loop, seeds=tuple(seeds), sampling=sampling, latents=latents)


def run_trials(
    work: Work, candidates: Sequence[Candidate], reference: FloatRun
) -> Iterator[tuple[Candidate, Trial]]:
    """Run each plan on the runtime that it is for: on the float model's calls, and in its own loop.

    Raises:
        SegQuantError: a plan cannot be rewritten, or its runtime refuses it.
    """
    with scratch_folder(work.run / "trials.yaml") as scratch:
        for index, candidate in enumerate(candidates):
            folder = scratch / str(index)
            folder.mkdir()
            denoise = _opened(work, candidate, folder / "quantized.onnx")
            update = work.update(f"try {candidate.name}")
            yield candidate, _trial(work, candidate, denoise, reference, update)
            for file in folder.iterdir():  # one plan's weights at a time
                file.unlink()


def _opened(work: Work, candidate: Candidate, path: Path) -> Denoise:
    rewrite(
        work.run / "model.onnx",
        work.weights(),
        work.facts(),
        candidate.plan,
        path,
        arrays=StoredArrays(work.run / "scores.safetensors", candidate.plan),
        timestep=work.spec().timestep,
        largest=magnitudes(work, candidate.plan.target),
    )
    output = load_graph(path).graph.output[0].name
    session = backend_for(candidate.plan.target).open(path, threads=work.options.threads)
    return lambda inputs: np.asarray(session.run(inputs, [output])[output], dtype=np.float32)


def _trial(
    work: Work,
    candidate: Candidate,
    denoise: Denoise,
    reference: FloatRun,
    update: Callable[[int, int], None],
) -> Trial:
    mean_db, decibels = reference.calls.sqnr_db(denoise, work.spec().timestep)
    if reference.loop is not None:
        sampled = sample(reference.loop, denoise, reference.seeds, reference.sampling, update)
        assert reference.latents is not None
        decibels = sqnr_db(reference.latents, sampled.latents).tolist()
    return Trial(
        name=candidate.name,
        decisions_sha256=decisions_sha256(candidate.plan),
        sqnr_db_mean=round(mean_db, 2),
        decibels=tuple(round(value, 2) for value in decibels),
    )


def _kept(array: Array, before: Array | None) -> Array:
    """A copy of what may be written over; arguments that stay the same are kept once."""
    same = before is not None and before.shape == array.shape and np.array_equal(before, array)
    return before if same and before is not None else np.array(array)
