"""`scores.safetensors`: what each way to quantise each site would cost the denoiser's output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain, to_plain
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.records.options import RangeMethod
from segquant_trt.records.treatment import Treatment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA_VERSION = 1
AmplificationMethod = Literal["backward", "uniform", "unreached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputScore:
    """Codes of a convolution's requantised output, on targets that have such.

    `range`: what one scale covers; `channels` is the key of a float32[2, N] array, lowest and
    highest value per output channel. `range_noise` and `channels_noise`: per timestep bin, what
    one scale or one per channel adds to the noise-to-signal power at the denoiser's output.
    """

    range: tuple[float, float]
    channels: str
    range_noise: tuple[float, ...]
    channels_noise: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionScore:
    """One way to treat a site, measured on calibration rows.

    `noise`: per timestep bin, the noise-to-signal power at the denoiser's output when this site
    alone is treated so. `sqnr_db`: of the site's own output, mean over bins; None without signal.
    `output`: codes of `(y - b) / r` under a row factor r; None: those of y, which the site has.
    `ranges`: how activation ranges were found, where not as the user asked.
    """

    treatment: Treatment
    noise: tuple[float, ...]
    sqnr_db: float | None
    output: OutputScore | None = None
    ranges: RangeMethod | None = None

    @property
    def label(self) -> str:
        """The treatment's label, and how ranges and weight scales were found where it matters."""
        weight = self.treatment.weight
        searched = (
            weight is not None and weight.scale_method == "mse" and weight.rounding == "nearest"
        )
        text = self.treatment.label + (", unclipped" if self.ranges == "amax" else "")
        return text + (", searched weight scales" if searched else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteScore:
    """A site's options, in the same order for all sites of a group.

    A group are the sites that read one activation tensor: they share codes, so the planner decides
    for all of them at once. `rows_per_sample` is M of the site's `[M, K] x [K, N]`, and
    `inputs_per_sample` how many rows of C channels are coded for it: strides keep fewer of them;
    None: as many. `output_range` is what was seen of the output; requantising the output
    (convolutions on some targets) adds `range_noise` with one scale, `channels_noise` with the
    scales of the array `output_channels`. A site without options stays in float.
    """

    site: str
    group: str
    rows_per_sample: int
    inputs_per_sample: int | None = None
    amplification: AmplificationMethod
    output_range: tuple[float, float]
    output_channels: str
    range_noise: tuple[float, ...]
    channels_noise: tuple[float, ...]
    options: tuple[OptionScore, ...]

    def output(self, option: OptionScore) -> OutputScore:
        """How the output is requantised under `option`."""
        if option.output is not None:
            return option.output
        return OutputScore(
            range=self.output_range,
            channels=self.output_channels,
            range_noise=self.range_noise,
            channels_noise=self.channels_noise,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The record without its arrays, which `read_arrays` gives by key."""

    onnx_sha256: str
    facts_sha256: str
    calibration_sha256: str
    bin_edges: tuple[float, ...]
    sites: tuple[SiteScore, ...]

    def check_graph(self, onnx_sha256: str) -> None:
        """The graph of these scores has this digest.

        Raises:
            SegQuantError: it has another.
        """
        if self.onnx_sha256 != onnx_sha256:
            raise SegQuantError(
                "scores.safetensors and facts.yaml are of different models "
                f"({self.onnx_sha256[:12]} and {onnx_sha256[:12]})",
                hint="run 'segquant-trt score' on this model again",
            )


def array_key(prefix: str, *arrays: npt.NDArray[np.generic]) -> str:
    """`prefix` and 16 hexadecimal digits of the content's sha256."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"{prefix}-{digest.hexdigest()[:16]}"


def write_scores(path: Path, scores: Scores, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Write record and arrays atomically; equal content gives equal bytes."""
    from safetensors.numpy import save

    header = json.dumps({"schema_version": SCHEMA_VERSION, **to_plain(scores)}, sort_keys=True)
    ordered: dict[str, Any] = {name: arrays[name] for name in sorted(arrays)}
    atomic_write_bytes(path, save(ordered, metadata={"scores": header}))


def read_scores(path: Path) -> Scores:
    """Read the record; the arrays stay on disk.

    Raises:
        SegQuantError: missing, truncated, or not scores of this schema version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            header = json.loads((file.metadata() or {})["scores"])
        version = header.pop("schema_version")
    except (
        *(SafetensorError, OSError, KeyError),
        *(ValueError, TypeError, AttributeError),  # JSON of another form than was written
    ) as error:
        raise SegQuantError(
            f"{path} is not a readable scores file (missing, truncated or altered)",
            hint="run 'segquant-trt score' again",
        ) from error
    if version != SCHEMA_VERSION:
        raise SegQuantError(
            f"{path} has schema_version {version!r}; this program reads {SCHEMA_VERSION}",
            hint="run 'segquant-trt score' again",
        )
    return from_plain(header, Scores, origin=str(path))


def read_arrays(path: Path, keys: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays called `keys`.

    Raises:
        SegQuantError: the file cannot be read, or a plan names an array that it lacks.
    """
    from safetensors import SafetensorError, safe_open

    wanted = sorted(set(keys))
    if not wanted:
        return {}
    try:
        with safe_open(str(path), framework="numpy") as file:
            missing = [key for key in wanted if key not in set(file.keys())]
            if not missing:
                return {key: file.get_tensor(key) for key in wanted}
    except (SafetensorError, OSError) as error:
        raise SegQuantError(
            f"{path} is not a readable scores file (missing, truncated or altered)",
            hint="run 'segquant-trt score' again",
        ) from error
    raise SegQuantError(
        f"the plan names the array '{missing[0]}', which {path} does not hold",
        hint="undo the edit of the plan, or run 'segquant-trt score' and 'plan' again",
    )


def treatment_keys(treatment: Treatment) -> tuple[str, ...]:
    """The arrays that a treatment names."""
    keys: list[str] = []
    if treatment.smoothing is not None:
        keys.append(treatment.smoothing.divisor)
    if treatment.weight is not None and treatment.weight.codes is not None:
        keys += [f"{treatment.weight.codes}.codes", f"{treatment.weight.codes}.scale"]
    return tuple(keys)
