"""The plan stage: what is done to every site, decided from records alone."""

from segquant_trt.plan.decide import PlanRequest, make_plan

__all__ = ["PlanRequest", "make_plan"]
