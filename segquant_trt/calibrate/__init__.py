"""The calibrate stage: record trajectories, gather statistics of every site."""

from segquant_trt.calibrate.stage import CalibrationRequest, calibrate, synthetic_inputs

__all__ = ["CalibrationRequest", "calibrate", "synthetic_inputs"]
