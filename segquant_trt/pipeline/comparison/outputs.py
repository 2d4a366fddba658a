"""What a comparison leaves on disk: the record, every call, a picture, a page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segquant_trt.bench.export_times import export_times
from segquant_trt.bench.rounds import Timings
from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import to_plain
from segquant_trt.records.comparison import Comparison
from segquant_trt.records.files import atomic_write_json, writing_failed

PLOT_SUFFIXES = (".svg", ".png", ".pdf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files to write; None for those that nobody asked for."""

    record: Path | None = None
    times: Path | None = None
    plot: Path | None = None
    page: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be written before minutes of timing.

        Raises:
            SegQuantError: a folder that cannot be written, a folder in a file's place, or a plot
                of unknown format.
        """
        if self.plot is not None and self.plot.suffix not in PLOT_SUFFIXES:
            raise SegQuantError(
                f"{self.plot} is no plot by its name; allowed: {', '.join(PLOT_SUFFIXES)}",
                hint="give the file one of these suffixes",
            )
        for path in (self.record, self.times, self.plot, self.page):
            if path is not None:
                _check_writable(path)

    def write(
        self, comparison: Comparison, timings: Mapping[tuple[str, str], Timings]
    ) -> tuple[Path, ...]:
        """Write the files that were asked for.

        Raises:
            SegQuantError: one cannot be written.
        """
        from segquant_trt.report.comparison_page import write_page
        from segquant_trt.report.comparison_plot import write_plot

        written: list[Path] = []
        if self.times is not None:
            written += export_times(self.times, timings)
        if self.plot is not None:
            write_plot(self.plot, comparison)
            written.append(self.plot)
        if self.page is not None:
            write_page(self.page, comparison)
            written.append(self.page)
        if self.record is not None:
            atomic_write_json(self.record, to_plain(comparison))
            written.append(self.record)
        return tuple(written)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise SegQuantError(f"{path} is a folder; a file is wanted", hint="add a file's name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise writing_failed(path, error) from error
