"""What `scores.safetensors` holds: per site, how many ways were scored, and what the best reach."""

from __future__ import annotations

from pathlib import Path

from segquant_trt.records.scores import OptionScore, SiteScore, read_scores
from segquant_trt.report.description import Cell, Description, Property, Table, columns


def describe_scores(path: Path, *, arrays: int) -> Description:
    """The scores in the file `path`, which holds so many arrays.

    Raises:
        SegQuantError: truncated, altered, or of another schema version.
    """
    scores = read_scores(path)
    return Description(
        kind="scores",
        properties=(
            Property(name="file", value=path.name),
            Property(name="sites", value=len(scores.sites)),
            Property(name="groups", value=len({site.group for site in scores.sites})),
            Property(name="options", value=sum(len(site.options) for site in scores.sites)),
            Property(name="timestep bins", value=len(scores.bin_edges)),
            Property(name="arrays", value=arrays),
            Property(name="size", value=path.stat().st_size, unit="bytes"),
            Property(name="graph sha256", value=scores.onnx_sha256),
        ),
        tables=(
            Table(
                title="sites",
                columns=columns(
                    "site",
                    ("options", "count"),
                    ("symmetric, dB", "number"),
                    ("best, dB", "number"),
                    "best in integers",
                    "amplification",
                ),
                rows=tuple(_row(site) for site in scores.sites),
            ),
        ),
    )


def _row(site: SiteScore) -> tuple[Cell, ...]:
    integer = [option for option in site.options if option.treatment.is_integer]
    plain = next((o for o in integer if o.treatment.label == "symmetric"), None)
    best = max(integer, key=_decibels, default=None)
    return (
        site.site,
        len(site.options),
        None if plain is None else plain.sqnr_db,
        None if best is None else best.sqnr_db,
        None if best is None else best.treatment.label,
        site.amplification,
    )


def _decibels(option: OptionScore) -> float:
    return float("-inf") if option.sqnr_db is None else option.sqnr_db
