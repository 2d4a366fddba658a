"""The calibrate stage: record trajectories, gather statistics of every site."""

from segquant_trt.calibrate.collect import collect
from segquant_trt.calibrate.record import record

__all__ = ["collect", "record"]
