"""A zoo model as its run folder describes it: what every quantiser of the ablation starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segquant_trt.records import CheckpointLocation, GraphFacts, ModelSpec, QuantPlan
from segquant_trt.records.codec import read_record
from segquant_trt.records.recordings import Array, open_recordings

_CALL_SAMPLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model that was exported, calibrated, analysed and planned in the folder `run`.

    `macs` are multiplications and additions per sample, by site.
    """

    run: Path
    spec: ModelSpec
    facts: GraphFacts
    macs: Mapping[str, int]

    @classmethod
    def of(cls, run: Path) -> Subject:
        """Read the records of a run folder."""
        plan = read_record(run / "plan.yaml", QuantPlan)
        return cls(
            run=run,
            spec=read_record(run / "model.yaml", ModelSpec),
            facts=read_record(run / "facts.yaml", GraphFacts),
            macs={site.site: site.macs_per_sample for site in plan.sites},
        )

    @property
    def weights(self) -> Path:
        """The checkpoint's folder."""
        return Path(read_record(self.run / "model.location.yaml", CheckpointLocation).folder)

    @property
    def kept(self) -> tuple[str, ...]:
        """Sites on NVIDIA's exclusion list: embedders, modulation and the final projection."""
        return tuple(site.name for site in self.facts.sites if site.role != "body")

    def share(self, sites: Mapping[str, bool]) -> float:
        """Share of the multiplications and additions in the sites that are true."""
        chosen = sum(macs for site, macs in self.macs.items() if sites.get(site, False))
        return chosen / sum(self.macs.values())

    def calls(self, samples: int = _CALL_SAMPLES) -> Iterator[dict[str, Array]]:
        """The inputs that our own calibration saw, `samples` at a time, of one timestep each."""
        return open_recordings(self.run / "recordings", self.spec).batches(samples)

    def call_count(self, samples: int = _CALL_SAMPLES) -> int:
        """How many calls `calls(samples)` gives."""
        return open_recordings(self.run / "recordings", self.spec).batch_count(samples)

    def guidance_call(self) -> dict[str, Array]:
        """Inputs of one image with guidance: batch 2."""
        return next(open_recordings(self.run / "excerpt.safetensors", self.spec).batches(2))
