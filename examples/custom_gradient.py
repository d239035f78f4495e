"""Derivatives of one's own: a stable one, and one where mathematics has none to offer.

Output:

    $ python examples/custom_gradient.py
    at x = 1000: naive    inf, derivative nan
    at x = 1000: log1pexp 1000.0, derivative 1.0
    second derivative at 0: 0.2500
    step 15  loss   2.9571  rounded [2, -2, 6, 0]
    step 30  loss   0.0000  rounded [3, -2, 7, 0]
    step 45  loss   0.0000  rounded [3, -2, 7, 0]
    step 60  loss   0.0000  rounded [3, -2, 7, 0]
"""

import argparse

import numpy as np

import graphjit as gj


def naive(x):
    """log(1 + exp(x)): right on paper, but exp(1000) is inf, and inf / inf is no number."""
    return gj.log(1 + gj.exp(x))


def stable(x):
    """The same, written so that nothing overflows."""
    return gj.maximum(x, 0) + gj.log1p(gj.exp(-gj.abs(x)))


# forward: the result and what the way back needs; backward: from that and the cotangent g one for each argument
log1pexp = gj.custom_vjp(stable)
log1pexp.defvjp(lambda x: (stable(x), x), lambda x, g: (g * gj.sigmoid(x),))


@gj.custom_vjp
def rounded(x):
    """The nearest whole number, whose derivative is 0 wherever there is one; on the way back as if it were x itself
    (a straight-through estimator)."""
    return gj.round(x)


rounded.defvjp(lambda x: (gj.round(x), None), lambda _, g: (g,))


def main(argv: list[str] | None = None) -> None:
    """Compare, check against differences, then learn whole numbers by gradient descent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args(argv)

    for name, f in (("naive", naive), ("log1pexp", log1pexp)):
        value, slope = gj.value_and_grad(f)(1000.0)
        print(f"at x = 1000: {name:8} {value.item():.1f}, derivative {slope.item():.1f}")
    gj.testing.check_grads(log1pexp, (np.linspace(-3.0, 3.0, 7),), order=2)  # raises where they do not agree
    print(f"second derivative at 0: {gj.grad(gj.grad(log1pexp))(0.0).item():.4f}")

    # which whole numbers w made y = x @ w? The loss sees whole numbers only, the gradient passes through
    rng = np.random.default_rng(0)
    true = np.array([3.0, -2.0, 7.0, 0.0])
    x = rng.standard_normal((200, 4))
    y = x @ true

    @gj.compile
    def step(w):
        loss, g = gj.value_and_grad(lambda w: ((x @ rounded(w) - y) ** 2).mean())(w)
        return loss, w - 0.05 * g

    w = gj.zeros(4, dtype="float64")
    for i in range(1, args.steps + 1):
        loss, w = step(w)
        if i % (args.steps // 4) == 0:
            print(f"step {i:2}  loss {loss.item():8.4f}  rounded {gj.round(w).astype('int64').tolist()}")


if __name__ == "__main__":
    main()
