"""The plan stage: how each site is treated, and why."""

from segquant_trt.plan.candidates import (
    Candidate,
    decisions_sha256,
    make_candidates,
    make_references,
)
from segquant_trt.plan.choose import choose, latent_gain_db, step_gain_db
from segquant_trt.plan.decide import Digests, make_plan
from segquant_trt.plan.request import PlanRequest, plan_request
from segquant_trt.plan.weigh import Weighed, Weighing, weigh

__all__ = [
    "Candidate",
    "Digests",
    "PlanRequest",
    "Weighed",
    "Weighing",
    "choose",
    "decisions_sha256",
    "latent_gain_db",
    "make_candidates",
    "make_plan",
    "make_references",
    "plan_request",
    "step_gain_db",
    "weigh",
]
