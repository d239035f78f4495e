"""Handwritten digits and a training step written by hand: forward, backward and update are one compiled function.

It needs scikit-learn for the data. Take the decorators away, or set ``GRAPHJIT_EAGER=1``, and the same code runs
eagerly, with the same losses.

Output, of all samples and of few:

    $ python examples/digits_mlp.py
    epoch  1  loss 1.2027  validation accuracy 93.61%
    epoch  2  loss 0.4367  validation accuracy 96.11%
    epoch  3  loss 0.2450  validation accuracy 97.78%
    ...
    epoch 19  loss 0.0409  validation accuracy 98.61%
    epoch 20  loss 0.0370  validation accuracy 98.89%
    batches of [32, 29] samples, 2 traces of the step

    $ python examples/digits_mlp.py --samples 500 --epochs 10
    epoch  1  loss 1.7234  validation accuracy 83.11%
    epoch  2  loss 1.0092  validation accuracy 91.75%
    ...
    epoch  9  loss 0.1371  validation accuracy 96.84%
    epoch 10  loss 0.1260  validation accuracy 97.30%
    batches of [32, 20] samples, 2 traces of the step
"""

import argparse

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim


def main(argv: list[str] | None = None) -> float:
    """Train, print a line for each epoch, and give the accuracy on samples not seen in training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1437, help="to train on; the other ones validate")
    args = parser.parse_args(argv)
    gj.manual_seed(0)

    digits = data.load("digits")
    samples = data.TensorDataset(digits.x / 16, digits.y)  # pixels are 0 to 16
    train, held_out = data.random_split(samples, [args.samples, len(samples) - args.samples])
    loader = data.DataLoader(train, batch_size=32, shuffle=True)
    val_x, val_y = held_out.batch(range(len(held_out)))

    model = nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(64, 10))
    opt = optim.Adam(model.parameters(), lr=2e-3)

    @gj.compile
    def train_step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    @gj.compile
    def predict(x):
        return model(x).argmax(axis=1)

    accuracy = 0.0
    for epoch in range(1, args.epochs + 1):
        losses = [train_step(x, y).item() for x, y in loader]
        model.eval()  # no dropout, running statistics: the compiled functions see it
        with gj.no_grad():
            accuracy = float((predict(val_x).numpy() == val_y).mean())
        model.train()
        print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}  validation accuracy {accuracy:.2%}")
    sizes = sorted({min(32, len(train) - i) for i in range(0, len(train), 32)}, reverse=True)
    print(f"batches of {sizes} samples, {train_step.trace_count} traces of the step")
    return accuracy


if __name__ == "__main__":
    main()
