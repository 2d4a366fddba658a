"""Records: the frozen values that stages exchange, and their codec."""

from segquant_trt.records.bundle import BundleFile, Manifest
from segquant_trt.records.facts import GraphFacts, LinearSite, SiteRole
from segquant_trt.records.measurements import (
    Benchmark,
    LatencyFigure,
    Quality,
    SiteError,
    StepFigure,
)
from segquant_trt.records.model_spec import (
    AxisRange,
    CheckpointFile,
    CheckpointLocation,
    ModelSpec,
    TensorSpec,
    Validation,
)
from segquant_trt.records.plan import (
    TARGETS,
    ActivationScheme,
    Considered,
    KeepFloat,
    QuantPlan,
    Shifted,
    SitePlan,
    Symmetric,
    Target,
    WeightPlan,
)

__all__ = [
    "TARGETS",
    "ActivationScheme",
    "AxisRange",
    "Benchmark",
    "BundleFile",
    "CheckpointFile",
    "CheckpointLocation",
    "Considered",
    "GraphFacts",
    "KeepFloat",
    "LatencyFigure",
    "LinearSite",
    "Manifest",
    "ModelSpec",
    "Quality",
    "QuantPlan",
    "Shifted",
    "SiteError",
    "SitePlan",
    "SiteRole",
    "StepFigure",
    "Symmetric",
    "Target",
    "TensorSpec",
    "Validation",
    "WeightPlan",
]
