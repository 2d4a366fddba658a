"""`quality.json` and `benchmark.json`: the figures of `verify` and `bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segquant_trt.records.temporal import TemporalFeature


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigure:
    """Teacher-forced figures of one denoising step, dB averaged over samples."""

    timestep: float
    sqnr_db: float
    sqnr_db_float16: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteError:
    """Output SQNR of the denoiser in dB when this site alone is quantised."""

    site: str
    module: str | None
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Figures of `verify`. None where the input gives them no meaning (`not_applicable`).

    `latent_sqnr_db_stderr`: standard error over the seeds.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    bundle_manifest_sha256: str
    sqnr_db_mean: float
    sqnr_db_worst: float
    steps: tuple[StepFigure, ...]
    latent_sqnr_db: float | None
    latent_sqnr_db_stderr: float | None = None
    latent_sqnr_db_float16: float | None
    psnr_db: float | None
    ssim: float | None
    classifier_accuracy: float | None
    classifier_accuracy_float: float | None
    frechet_distance: float | None
    frechet_distance_float: float | None
    site_errors: tuple[SiteError, ...]
    samples: int
    scheduler_steps: int | None
    guidance_scale: float | None
    not_applicable: tuple[str, ...]
    temporal: tuple[TemporalFeature, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFigure:
    """Milliseconds per denoiser call over interleaved runs."""

    median_ms: float
    p90_ms: float
    p99_ms: float
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Figures of `bench`. `not_measured`: why there is no latency, where the target needs a GPU."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    bundle_manifest_sha256: str
    latency_batch: int
    shapes: dict[str, tuple[int, ...]]
    latency_float: LatencyFigure | None
    latency_quantized: LatencyFigure | None
    speedup_median: float | None
    speedup_low: float | None  # 95 % bootstrap interval of the paired ratio's median
    speedup_high: float | None
    peak_memory_bytes_float: int | None
    peak_memory_bytes_quantized: int | None
    size_bytes_float: int
    size_bytes_quantized: int
    hardware: dict[str, str]
    versions: dict[str, str]
    not_measured: str | None = None
