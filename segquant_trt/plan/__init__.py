"""The plan stage: how each site is treated, and why."""

from segquant_trt.plan.decide import Digests, make_plan
from segquant_trt.plan.request import PlanRequest, plan_request
from segquant_trt.plan.weigh import Weighed, Weighing, weigh

__all__ = [
    "Digests",
    "PlanRequest",
    "Weighed",
    "Weighing",
    "make_plan",
    "plan_request",
    "weigh",
]
