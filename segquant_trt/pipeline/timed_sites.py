"""Sites that are alone in their graph, made by the stages themselves, and what a call takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from segquant_trt.records.plan import Target

if TYPE_CHECKING:
    from segquant_trt.backends import Backend, Runner
    from segquant_trt.bench.costs.fit import Case, EmptyCall
    from segquant_trt.bench.costs.shapes import Shape
    from segquant_trt.bench.costs.variants import Variant
    from segquant_trt.models.loop import Array
    from segquant_trt.records import GraphFacts, SitePlan, Treatment
    from segquant_trt.records.costs import CostTable

_EMPTY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSite:
    """A float graph of one site on disk, its facts and inputs for a call."""

    shape: Shape
    model: Path
    facts: GraphFacts
    inputs: Mapping[str, Array]

    def rewritten(self, variant: Variant, target: Target) -> tuple[Path, SitePlan] | None:
        """The graph with the site treated so, and its plan; None if the target cannot."""
        from segquant_trt.backends import backend_for
        from segquant_trt.records import QuantPlan
        from segquant_trt.rewrite import rewrite

        (site,) = self.facts.sites
        planned, arrays = variant.site_plan(self.shape, site.name)
        if backend_for(target).placement.lacks(site, planned) is not None:
            return None
        plan = QuantPlan(
            target=target,
            preset=variant.name,
            onnx_sha256=self.facts.onnx_sha256,
            facts_sha256="",
            calibration_sha256="",
            sites=(planned,),
        )
        out = self.model.with_name(f"{target}-{variant.name}.onnx")
        rewrite(self.model, self.model.parent, self.facts, plan, out, arrays=arrays)
        return out, planned


def one_site(shape: Shape, folder: Path) -> OneSite:
    """Write the float graph of a site of `shape` into `folder`, and analyse it."""
    from segquant_trt.analyze import analyze
    from segquant_trt.bench.costs.graphs import write_one_site

    model, inputs = write_one_site(shape, folder)
    facts = analyze(model, timestep="timestep")
    return OneSite(shape=shape, model=model, facts=facts, inputs=inputs)


def empty_call(target: Target, shape: Shape, *, threads: int | None) -> EmptyCall:
    """What a call takes in which nothing is computed, in turn with a float site of `shape`."""
    from segquant_trt.backends import backend_for
    from segquant_trt.bench.costs.fit import EmptyCall, timing
    from segquant_trt.bench.costs.graphs import write_empty, write_one_site
    from segquant_trt.bench.costs.interleaved import interleaved

    backend = backend_for(target)
    with TemporaryDirectory(prefix="segquant-costs-") as scratch:
        calls = {
            name: _call(_float_session(backend, model, threads), inputs)
            for name, (model, inputs) in (
                ("empty", write_empty(Path(scratch) / "empty")),
                ("site", write_one_site(shape, Path(scratch) / "site")),
            )
        }
        found = interleaved(calls, budget_s=_EMPTY_S, at_most=20_000, warm_up=100)
    return EmptyCall(empty=timing(found["empty"]), shape=shape, site=timing(found["site"]))


def timed(shape: Shape, target: Target, *, budget_s: float, threads: int | None) -> list[Case]:
    """One case per variant that fits the shape and the target, the float site first."""
    from segquant_trt.backends import backend_for
    from segquant_trt.bench.costs.fit import Case, timing
    from segquant_trt.bench.costs.interleaved import interleaved, speedup
    from segquant_trt.bench.costs.variants import VARIANTS

    backend = backend_for(target)
    kinds: dict[str, tuple[Treatment | None, str]] = {"float": (None, "float")}
    with TemporaryDirectory(prefix="segquant-costs-") as scratch:
        site = one_site(shape, Path(scratch))
        name = site.facts.sites[0].name
        calls = {"float": _call(_float_session(backend, site.model, threads), site.inputs)}
        for variant in VARIANTS:
            found = site.rewritten(variant, target) if variant.fits(shape) else None
            if found is None:
                continue
            path, planned = found
            proof = backend.integer_sites(path, [name], example=site.inputs)[name]
            kinds[variant.name] = (planned.treatment, proof.kernel)
            calls[variant.name] = _call(backend.open(path, threads=threads), site.inputs)
        seconds = interleaved(calls, budget_s=budget_s, at_most=200, warm_up=3)
    return [
        Case(
            target=target,
            shape=shape,
            variant=name,
            treatment=treatment,
            label="float" if treatment is None else treatment.label,
            kernel=kernel,
            **asdict(timing(seconds[name])),
            over_float=speedup(seconds["float"], seconds[name]),
            over_symmetric=speedup(seconds["symmetric"], seconds[name]),
        )
        for name, (treatment, kernel) in kinds.items()
    ]


def price_ms(table: CostTable, treatment: Treatment, shape: Shape) -> float:
    """What the planner's sum says of a site that is alone in its group."""
    from segquant_trt.plan.costs import CostModel
    from segquant_trt.plan.costs import Shape as PlannedShape

    planned = PlannedShape(
        rows=shape.rows,
        input_rows=shape.rows,
        channels=shape.channels,
        outputs=shape.outputs,
        taps=shape.kernel**2,
        groups=1,
        is_convolution=shape.op == "convolution",
    )
    model = CostModel(table, table.target)
    return model.input_ms(treatment, planned) + model.product_ms(treatment, planned)


def _float_session(backend: Backend, model: Path, threads: int | None) -> Runner:
    from segquant_trt.graph.bigfile import load_graph

    return backend.float_session(load_graph(model), model.parent, threads=threads)


def _call(session: Runner, inputs: Mapping[str, Array]) -> Callable[[], object]:
    return lambda: session.run(inputs, ["y"])
