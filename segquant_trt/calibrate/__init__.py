"""The calibrate stage: record trajectories, gather statistics of every site."""

from segquant_trt.calibrate.collect import collect
from segquant_trt.calibrate.record import DenoisingLoop, record
from segquant_trt.calibrate.recordings import Recordings, open_recordings, write_shard

__all__ = [
    "DenoisingLoop",
    "Recordings",
    "collect",
    "open_recordings",
    "record",
    "write_shard",
]
