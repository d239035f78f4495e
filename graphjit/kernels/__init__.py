"""The hand-made kernel library: scalar and vector math, random numbers, matrix products, convolutions."""
