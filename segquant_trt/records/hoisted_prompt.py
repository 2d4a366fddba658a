"""What `--hoist-prompt` took out of a graph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HoistedPrompt:
    """What a second graph computes once per prompt, and the sites that it holds.

    It reads `inputs`, among them none but what a prompt fixes, and gives `values`, inputs of the
    main graph. The values in `by_step` depend on the timestep too: they come for the whole frozen
    schedule, with a row per sample and step, samples first. For these the graph also reads the
    timestep of every row, and in `row_input` (int64) the sample of every row. `sites` are no longer
    in the main graph and did `macs_per_sample`, `macs_share` of all; they stay float.
    """

    inputs: tuple[str, ...]
    values: tuple[str, ...]
    by_step: tuple[str, ...]
    row_input: str | None
    sites: tuple[str, ...]
    macs_per_sample: int
    macs_share: float
