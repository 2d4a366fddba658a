"""TensorRT: the GPU target, in its data-centre and its RTX edition."""
