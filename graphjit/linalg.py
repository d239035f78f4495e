"""``gj.linalg``: linear algebra, under the array API's names."""

from graphjit.ops.contract import matmul, outer, tensordot, vecdot
from graphjit.ops.decompose import EighResult, QRResult, SVDResult, eigh, qr, svd
from graphjit.ops.linalg import SlogdetResult, cholesky, det, inv, slogdet, solve, solve_triangular
from graphjit.ops.movement import matrix_transpose
from graphjit.ops.norms import diagonal, matrix_norm, norm, trace, vector_norm

__all__ = [
    "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "det", "diagonal", "eigh", "inv",
    "matmul", "matrix_norm", "matrix_transpose", "norm", "outer", "qr", "slogdet", "solve", "solve_triangular",
    "svd", "tensordot", "trace", "vecdot", "vector_norm",
]
