"""Two moons, told apart by a small perceptron with the loss of a support vector machine.

``MLP(2, [16, 16, 1])``, max-margin loss plus an L2 penalty, 100 samples, 40 epochs of plain gradient steps at a
falling rate. It needs scikit-learn for the data, matplotlib for the picture.

Output:

    $ python examples/moons_svm.py
    epoch  1  lr 1.000  loss 0.8065  accuracy 76%
    epoch  9  lr 0.820  loss 0.1157  accuracy 96%
    epoch 17  lr 0.640  loss 0.0357  accuracy 99%
    epoch 25  lr 0.460  loss 0.0209  accuracy 100%
    epoch 33  lr 0.280  loss 0.0120  accuracy 100%
    epoch 40  lr 0.122  loss 0.0088  accuracy 100%
    100% of 100 samples right, 337 parameters
    wrote runs/moons/boundary.png
"""

import argparse
from pathlib import Path

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn


def main(argv: list[str] | None = None) -> None:
    """Train by one call, then draw what was learned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/moons"), help="folder of the picture")
    args = parser.parse_args(argv)
    gj.manual_seed(0)

    moons = data.load("moons", samples=100, noise=0.1, seed=0)
    x, y = moons.x, 2 * moons.y - 1  # a margin needs classes 1 and -1
    model = nn.MLP(2, [16, 16, 1])

    def loss(score, target):
        """The mean of max(0, 1 - score * target), and a small pull of every weight towards 0."""
        return F.hinge_loss(score, target) + 1e-4 * sum((p * p).sum() for p in model.parameters())

    history = model.train(loss, (x, y), args.epochs, schedule=lambda epoch: 1.0 - 0.9 * epoch / args.epochs,
                          batch_size=20, seed=0)
    for epoch in [*range(1, history.epochs, 8), history.epochs]:
        print(f"epoch {epoch:2}  lr {history['lr'][epoch - 1]:.3f}  loss {history['train_loss'][epoch - 1]:.4f}  "
              f"accuracy {history['train_accuracy'][epoch - 1]:.0%}")
    model.eval()
    right = ((model(x) > 0) == (y > 0)).astype(float).mean()
    print(f"{right.item():.0%} of {len(y)} samples right, {sum(p.size for p in model.parameters())} parameters")

    path = args.out / "boundary.png"
    gj.plots.decision_boundary(model, x, y, path, classes=moons.classes, title="Moons, max-margin")
    print("wrote", path.as_posix())


if __name__ == "__main__":
    main()
