"""From graph to kernels: which nodes are computed together, and the Python source that computes them."""
