"""`plan.yaml`: what is done to every site, and why. Readable, editable, diffable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from segquant_trt.errors import SegQuantError
from segquant_trt.records.treatment import Treatment

Target = Literal["onnxruntime", "openvino", "tensorrt-rtx"]
CPU_TARGETS: tuple[Target, ...] = ("onnxruntime", "openvino")
TARGETS: tuple[Target, ...] = (*CPU_TARGETS, "tensorrt-rtx")
DISTRIBUTIONS: dict[Target, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt-rtx": "tensorrt-rtx-cu13-bindings",
}
"""The Python package of each target's runtime or builder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """An alternative that was weighed: its site SQNR on calibration rows in dB, and its cost."""

    option: str
    sqnr_db: float | None
    cost_ms: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePlan:
    """The decision for one site.

    `output_range` is the calibrated (min, max) of the site's output: convolutions on CPU targets
    requantise their output with it (see `backends`); None where no range was recorded.
    `output_channels` is the key of a float32[2, N] array (lowest and highest value per output
    channel) in `scores.safetensors`, for requantisation with one scale per channel.
    """

    site: str
    module: str | None
    treatment: Treatment
    output_range: tuple[float, float] | None
    output_channels: str | None = None
    macs_per_sample: int
    why: str
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the planner expects: teacher-forced SQNR in dB, and the sites' latency.

    `latency_ms` and `latency_ms_plain` are sums of the cost table's entries for this plan and for
    plain static INT8 of the same sites. `sqnr_db_mean` and `latent_sqnr_db`, that of the final
    latent, are what the plan reached where it was tried (`trials.yaml`); else what the scores add
    up to, and the gain that was measured on the model's reference plans. Without trials there is
    no gain, and no `latent_sqnr_db`.
    """

    sqnr_db_mean: float | None
    latency_ms: float | None
    latency_ms_plain: float | None
    latent_sqnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A plan that competed for being chosen, and how it did when it was run.

    `expected_db` and `measured_db` are SQNR per step, teacher-forced; `latent_db` is measured on
    the final latents. `margin_db` is the mean over seeds (or recorded samples) of its decibels
    less those of the chosen plan, `margin_stderr_db` that mean's standard error. What was not
    measured is None, and `verdict` says why.
    """

    name: str
    expected_db: float | None
    latency_ms: float | None
    measured_db: float | None = None
    latent_db: float | None = None
    margin_db: float | None = None
    margin_stderr_db: float | None = None
    chosen: bool = False
    verdict: str

    @property
    def ran(self) -> bool:
        """Whether it was run."""
        return self.chosen or self.margin_db is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantPlan:
    """The whole plan. The digests tie it to the records that it was made from.

    `scores_sha256` is that of `scores.safetensors`, which holds the arrays that the sites name.
    `chosen_from` are the plans that were compared by running them; empty where none was run.
    """

    SCHEMA_VERSION: ClassVar[int] = 2

    schema_version: int = 2
    target: Target
    preset: str
    onnx_sha256: str
    facts_sha256: str
    calibration_sha256: str
    scores_sha256: str | None = None
    prediction: Prediction | None = None
    chosen_from: tuple[Contender, ...] = ()
    sites: tuple[SitePlan, ...]

    def check_sites(self, names: Iterable[str]) -> None:
        """Every one of the graph's sites is decided once, and no other is named.

        Raises:
            SegQuantError: one is decided twice or not at all, or is not a site of the graph.
        """
        wanted = list(names)
        decided = Counter(site.site for site in self.sites)
        unknown = decided.keys() - {*wanted}
        if unknown:
            raise SegQuantError(
                f"the plan names site '{min(unknown)}', which the graph does not have",
                hint="undo the edit of plan.yaml, or plan again",
            )
        twice = [name for name, count in decided.items() if count > 1]
        missing = [name for name in wanted if name not in decided]
        if twice or missing:
            what = f"decides site '{twice[0]}' twice" if twice else f"lacks site '{missing[0]}'"
            raise SegQuantError(
                f"the plan {what}; every one of the {len(wanted)} sites needs one entry",
                hint="undo the edit of plan.yaml (keep_float leaves a site alone), or plan again",
            )

    @property
    def planner(self) -> str:
        """The preset that made the decisions: `auto` may have chosen the plan of another one."""
        winners = [contender.name for contender in self.chosen_from if contender.chosen]
        return winners[0].split()[0] if winners else self.preset
