"""The rows that matter of an ablation's record, in the order and by the names they are shown by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["theirs", "published", "ours"]
Row = Mapping[str, Any]

FLOOR = "weights-floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A line: the best, by latent SQNR, of the `methods` that are there."""

    label: str
    kind: Kind
    methods: tuple[str, ...]

    def of(self, rows: Sequence[Row]) -> Row | None:
        """Its row among those of one model and format."""
        candidates = [row for row in rows if row["method"] in self.methods]
        return max(candidates, key=lambda row: float(row["latent_sqnr_db"]), default=None)


def _theirs(label: str, *methods: str) -> Shown:
    return Shown(label=label, kind="theirs", methods=methods)


def _published(label: str, method: str) -> Shown:
    return Shown(label=label, kind="published", methods=(method,))


SHOWN: tuple[Shown, ...] = (
    _theirs("ONNX Runtime static", "ort-minmax-linears", "ort-percentile-linears"),
    _theirs("NVIDIA ModelOpt", "modelopt-max-linears", "modelopt-entropy-linears"),
    _theirs("OpenVINO NNCF", "nncf-mixed-linears", "nncf-performance-linears"),
    _published("plain static INT8", "plain"),
    _published("Q-Diffusion", "q-diffusion"),
    _published("TFMQ-DM", "tfmq"),
    _published("SegLinear", "seglinear"),
    _published("SegQuant", "segquant"),
    *(
        Shown(label=f"auto, {objective}", kind="ours", methods=(f"auto-{objective}",))
        for objective in ("speed", "balanced", "quality")
    ),
)
"""Other people's tools show their better calibration, on the same sites as ours."""


def models_of(record: Mapping[str, Any]) -> list[str]:
    """The models in the order of the record."""
    return list(dict.fromkeys(row["model"] for row in record["rows"]))


def rows_of(record: Mapping[str, Any], model: str, chosen: str = "W8A8") -> list[Row]:
    """The rows of one model and format."""
    return [row for row in record["rows"] if (row["model"], row["format"]) == (model, chosen)]


def floor_of(record: Mapping[str, Any], model: str) -> Row | None:
    """INT8 weights under float activations."""
    rows = rows_of(record, model, "W8A16")
    return next((row for row in rows if row["method"] == FLOOR), None)


def slowdown(record: Mapping[str, Any], model: str, method: str) -> tuple[float, float, float]:
    """Latency at full size over plain static INT8's: median and bounds; NaN where not timed."""
    for found in record["latencies"]:
        ratio = found["variants"].get(method) if found["model"] == model else None
        if ratio is not None:
            over = ratio["over_plain"]
            return 1 / over["median"], 1 / over["high"], 1 / over["low"]
    return (float("nan"),) * 3
