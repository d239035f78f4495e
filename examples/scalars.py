"""Numbers, gradients, and a picture of the graph: reverse mode as on the blackboard.

The picture is written as SVG, PNG (which needs matplotlib) and DOT; the Graphviz program is not needed.

Output:

    $ python examples/scalars.py
    e = 1.906419, made by add of ['tanh', 'div']
    de/da =  -0.3029   by a difference  -0.3030
    de/db =   0.6019   by a difference   0.6019
    de/dc =   0.5010   by a difference   0.5009
    wrote runs/scalars/graph.svg
    wrote runs/scalars/graph.png
    wrote runs/scalars/graph.dot
    step  1  loss 0.9471  [0.52, -1.05, -0.79, 0.74]
    step 10  loss 0.0135  [1.07, -0.99, -1.01, 0.93]
    step 40  loss 0.0000  [1.0, -1.0, -1.0, 1.0]
"""

import argparse
from pathlib import Path

import graphjit as gj
from graphjit import nn


def f(a, b, c):
    """Any expression of numbers, tensors or not."""
    d = a * b + c
    return gj.tanh(d) + gj.relu(-b) * a ** 2 / 10


def main(argv: list[str] | None = None) -> None:
    """Build an expression, go backward, draw; then learn with a network of such expressions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/scalars"), help="folder of the pictures")
    args = parser.parse_args(argv)

    # a number with a name is a variable: backward() finds its gradient
    a = gj.tensor(2.0, label="a")
    b = gj.tensor(-3.0, label="b")
    c = gj.tensor(6.88, label="c")
    e = f(a, b, c)
    e.label = "e"
    print(f"e = {e.item():.6f}, made by {e.op} of {[p.op for p in e.prev]}")

    # backward() gives every leaf the derivative of e by it
    e.backward()
    numbers, h = [t.item() for t in (a, b, c)], 1e-3
    for i, leaf in enumerate((a, b, c)):
        up, down = ([n + s * h * (i == j) for j, n in enumerate(numbers)] for s in (1, -1))
        slope = (f(*map(gj.tensor, up)) - f(*map(gj.tensor, down))).item() / (2 * h)
        print(f"de/d{leaf.label} = {leaf.grad.item():8.4f}   by a difference {slope:8.4f}")

    drawing = gj.draw_dot(e)
    for name in ("graph.svg", "graph.png", "graph.dot"):
        print("wrote", drawing.save(args.out / name).as_posix())

    # the same with 41 numbers: four samples, a target each, gradient steps by hand
    gj.manual_seed(1)
    model = nn.MLP(3, [4, 4, 1], activation="tanh")
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    for step in range(1, 41):
        loss = sum((model(x) - y) ** 2 for x, y in zip(xs, ys, strict=True))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.assign(p.detach() - 0.05 * p.grad)
        if step in (1, 10, 40):
            print(f"step {step:2}  loss {loss.item():.4f}  {[round(model(x).item(), 2) for x in xs]}")


if __name__ == "__main__":
    main()
