"""Loop kernels of pooling with the channels last: the innermost loop runs along the channels and vectorises.

One turn of the outermost loop makes one line of the result (its last spatial axis, of one image).
"""
