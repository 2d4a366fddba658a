"""The score stage: what each way to quantise each site costs the denoiser's output."""

from segquant_trt.score.stage import ScoreRequest, score

__all__ = ["ScoreRequest", "score"]
