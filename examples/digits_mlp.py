"""Handwritten digits, a multi-layer perceptron, the whole training step compiled.

Run it with ``python examples/digits_mlp.py``; it needs scikit-learn for the data. Take the decorators away, or
set ``GRAPHJIT_EAGER=1``, and the same code runs eagerly with the same losses.
"""

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim


def main(epochs: int = 20) -> float:
    """Train, print a line for each epoch, and give the accuracy on samples not seen in training."""
    gj.manual_seed(0)
    digits = gj.data.load("digits")
    x = digits.x / 16  # pixels are 0 to 16
    training, held_out = gj.data.random_split(gj.data.TensorDataset(x, digits.y), [0.8, 0.2])

    model = nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(64, 10))
    opt = optim.Adam(model.parameters(), lr=1e-3)

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

    loader = gj.data.DataLoader(training, batch_size=32, shuffle=True)
    test_x, test_y = held_out.batch(range(len(held_out)))
    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        losses = [train_step(x, y).item() for x, y in loader]
        model.eval()
        with gj.no_grad():
            accuracy = float((predict(test_x).numpy() == test_y).mean())
        model.train()
        print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}  accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
