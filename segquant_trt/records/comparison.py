"""What a comparison of several subjects measured: bundles, ONNX files, engines and torch modules.

Subjects take turns within every round, so ratios are of neighbours in time; times of different
comparisons are not comparable on a machine whose speed drifts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from segquant_trt.records.measurements import LatencyFigure

Clock = Literal["wall", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """The median over rounds of one latency over another, with its 95 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Shares of a model's multiply-accumulates, and the speed-up that they allow at most.

    Amdahl's law over 16-bit arithmetic, where 8-bit products are `ratio` times as fast: all else
    is granted for free, so nothing that runs can be faster. `macs` are those of one call.
    """

    of: str
    macs: int
    coded_share: float  # linears and convolutions whose weights and inputs are 8-bit codes
    attention_share: float  # the two products of attention
    other_share: float
    repeated_share: float  # on top of these: second products of inputs with two polarities
    ratio: float
    speedup_attention_16bit: float
    speedup_attention_8bit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFigures:
    """One subject in one case.

    `speedup` is the reference's latency over the subject's, None for the reference itself.
    `answer_sqnr_db` compares the subject's answer with the reference's on the same inputs, None
    for the reference and where both are equal to the bit (`answer_equal`).
    """

    subject: str
    clock: Clock
    latency: LatencyFigure
    speedup: PairedRatio | None
    samples_per_s: float
    answer_sqnr_db: float | None
    answer_equal: bool
    energy_j_per_call: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFigures:
    """All subjects at one size: `lengths` are those of the swept and typical axes."""

    lengths: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    batch: int
    subjects: tuple[SubjectFigures, ...]
    ceilings: tuple[Ceiling, ...]

    @property
    def title(self) -> str:
        """The lengths in words."""
        return ", ".join(f"{name} {length}" for name, length in self.lengths.items()) or "one size"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """What one node of the executed graph takes per call, as the runtime's profiler says."""

    name: str
    op: str
    ms_per_call: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFacts:
    """What is known of a subject beside its timings; None where nothing says it.

    `latent_sqnr_db` and `sqnr_db_mean` are those that `verify` measured of this very bundle.
    `peak_memory_bytes`: of a process of its own that opens the subject and calls it twice.
    """

    subject: str
    kind: str
    source: str
    size_bytes: int | None
    macs_integer_share: float | None
    sqnr_db_mean: float | None
    latent_sqnr_db: float | None
    peak_memory_bytes: int | None
    device_memory_bytes: int | None
    kernels: tuple[KernelTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A whole comparison; `reference` is the subject that ratios are relative to."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    reference: str
    subjects: tuple[SubjectFacts, ...]
    cases: tuple[CaseFigures, ...]
    threads: int | None
    seed: int
    hardware: dict[str, str]
    versions: dict[str, str]
    notes: tuple[str, ...]
