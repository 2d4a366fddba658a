"""What a person reads: the HTML report, `inspect` and `doctor`."""

from segquant_trt.report.description import Description
from segquant_trt.report.doctor import Diagnosis, examine
from segquant_trt.report.inspect import describe
from segquant_trt.report.write import write_report

__all__ = ["Description", "Diagnosis", "describe", "examine", "write_report"]
