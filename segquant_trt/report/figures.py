"""The verdict: which figures head the report, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from segquant_trt.records import Benchmark, LatencyFigure, Manifest, Prediction, Quality
from segquant_trt.report.charts import Bar
from segquant_trt.report.numerals import decibels, milliseconds, percent, ratio, significant, size

_EN_DASH = "\N{EN DASH}"
_ARROW = "\N{RIGHTWARDS ARROW}"


_NAMES = {
    "sqnr_db_mean": "SQNR",
    "sqnr_db_worst": "worst SQNR",
    "latent_sqnr_db": "SQNR of the final latent",
    "scheduler_steps": "number of steps",
    "guidance_scale": "guidance",
    "psnr_db": "image PSNR",
    "ssim": "SSIM",
    "classifier_accuracy": "classifier accuracy",
    "frechet_distance": "Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One headline figure: a name, the figure, and what to compare it with."""

    name: str
    value: str
    context: str
    tone: Literal["plain", "good", "warn"] = "plain"


def cards(
    manifest: Manifest, quality: Quality, benchmark: Benchmark, prediction: Prediction | None
) -> tuple[Card, ...]:
    """Headline figures; those without meaning for this input are left out."""
    return (
        *_quality_cards(quality, prediction),
        *_learned_cards(quality),
        *_cost_cards(manifest, benchmark),
    )


def _quality_cards(quality: Quality, prediction: Prediction | None) -> Iterator[Card]:
    expected_db = None if prediction is None else prediction.sqnr_db_mean
    worst = min(quality.steps, key=lambda step: step.sqnr_db, default=None)
    when = f" at timestep {worst.timestep:.6g}" if worst else ""
    planned = f"; {decibels(expected_db)} were expected" if expected_db is not None else ""
    yield Card(
        name="SQNR, per step",
        value=decibels(quality.sqnr_db_mean),
        context=f"worst {decibels(quality.sqnr_db_worst)}{when}{planned}",
    )
    if quality.latent_sqnr_db is not None:
        floor = quality.latent_sqnr_db_float16
        alone = f"float16 alone: {decibels(floor)}" if floor is not None else "free running"
        latent_db = None if prediction is None else prediction.latent_sqnr_db
        planned = f"; {decibels(latent_db)} were expected" if latent_db is not None else ""
        yield Card(
            name="SQNR, final latent",
            value=decibels(quality.latent_sqnr_db),
            context=f"{alone}{planned}",
        )
    if quality.psnr_db is not None:
        ssim = f"SSIM {quality.ssim:.4f}" if quality.ssim is not None else "images, same seeds"
        yield Card(name="Image PSNR", value=decibels(quality.psnr_db), context=ssim)


def _learned_cards(quality: Quality) -> Iterator[Card]:
    if quality.classifier_accuracy is not None:
        yield Card(
            name="Classifier accuracy",
            value=percent(quality.classifier_accuracy),
            context=f"float {percent(quality.classifier_accuracy_float)}",
        )
    if quality.frechet_distance is not None:
        before = quality.frechet_distance_float
        yield Card(
            name="Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance",
            value=significant(quality.frechet_distance),
            context=f"float {significant(before)}" if before is not None else "to real images",
        )


def _cost_cards(manifest: Manifest, benchmark: Benchmark) -> Iterator[Card]:
    before, after = manifest.size_bytes_float, manifest.size_bytes_quantized
    yield Card(
        name="Size reduction",
        value=ratio(before / after if after else None),
        context=f"{size(before)} {_ARROW} {size(after)}",
        tone="good" if after < before else "warn",
    )
    yield _speed_card(benchmark)
    frozen = manifest.frozen
    tables = "" if frozen is None else f"; {len(frozen.sites)} more are tables"
    if manifest.hoisted is not None:
        tables += (
            f"; {len(manifest.hoisted.sites)} ({percent(manifest.hoisted.macs_share)} of the MACs) "
            "run once per prompt"
        )
    yield Card(
        name="MACs in integers",
        value=percent(manifest.macs_integer_share),
        context=f"{manifest.sites_integer} of {manifest.sites_total} sites, as executed{tables}",
    )


def _speed_card(benchmark: Benchmark) -> Card:
    low, high = benchmark.speedup_low, benchmark.speedup_high
    if low is None or high is None:
        return Card(name="Speed-up", value=ratio(None), context=benchmark.not_measured or "")
    faster = low > 1
    slower = high < 1
    word = "faster" if faster else "slower" if slower else "within noise of float"
    return Card(
        name="Speed-up",
        value=ratio(benchmark.speedup_median),
        context=f"{word}; 95 % interval {low:.2f}{_EN_DASH}{high:.2f}",
        tone="good" if faster else "warn" if slower else "plain",
    )


def absent(quality: Quality) -> tuple[str, ...]:
    """The figures that this input gives no meaning, in words; not what they are compared with."""
    return tuple(_NAMES[key] for key in quality.not_applicable if key in _NAMES)


def latency_bars(benchmark: Benchmark) -> tuple[Bar, ...]:
    """Median latency per denoiser call, with p90 and p99 as marks; none that was not measured."""
    figures = {"float": benchmark.latency_float, "quantised": benchmark.latency_quantized}
    return tuple(_latency_bar(label, own) for label, own in figures.items() if own is not None)


def _latency_bar(label: str, figure: LatencyFigure) -> Bar:
    return Bar(
        label=label,
        value=figure.median_ms,
        text=milliseconds(figure.median_ms),
        ticks=(figure.p90_ms, figure.p99_ms),
    )


def byte_bars(size_bytes_float: int, size_bytes_quantized: int) -> tuple[Bar, Bar]:
    """Two sizes, of files or of memory."""
    return (
        Bar(label="float", value=size_bytes_float, text=size(size_bytes_float)),
        Bar(label="quantised", value=size_bytes_quantized, text=size(size_bytes_quantized)),
    )
