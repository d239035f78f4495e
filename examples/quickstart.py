"""A first training: handwritten digits, in four calls.

It needs scikit-learn for the data.

Output:

    $ python examples/quickstart.py
    epoch  1  training loss 1.1040  validation accuracy 93.59%
    epoch  3  training loss 0.1941  validation accuracy 96.38%
    epoch  5  training loss 0.1072  validation accuracy 97.49%
    epoch  7  training loss 0.0750  validation accuracy 97.77%
    epoch  9  training loss 0.0588  validation accuracy 98.33%
    epoch 11  training loss 0.0357  validation accuracy 97.49%
    epoch 13  training loss 0.0363  validation accuracy 98.05%
    epoch 15  training loss 0.0341  validation accuracy 97.77%
    best epoch 14: 98.89% of 359 validation samples right
    guessed [3, 0, 6, 3, 5, 2, 9, 7, 5, 2, 0, 6]
    true    [3, 0, 6, 3, 5, 2, 9, 7, 8, 2, 0, 6]
"""

import argparse

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim, training


def main(argv: list[str] | None = None) -> None:
    """Train, look at the history, keep the best model, use it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", default="runs/quickstart", help="folder of the checkpoint")
    args = parser.parse_args(argv)
    gj.manual_seed(0)  # repeats everything: the split, the weights, the batches, the dropout masks

    digits = data.load("digits")
    samples = data.TensorDataset(digits.x / 16, digits.y)  # pixels are 0 to 16
    train, val = data.random_split(samples, [0.8, 0.2])

    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    best = training.BestModel(f"{args.out}/best.safetensors", monitor="val_loss")
    history = training.fit(model, F.cross_entropy, optim.Adam(model.parameters(), lr=2e-3),
                           (data.DataLoader(train, batch_size=32, shuffle=True), data.DataLoader(val, batch_size=512)),
                           epochs=args.epochs, callbacks=[best])
    for epoch in range(0, history.epochs, 2):
        print(f"epoch {epoch + 1:2}  training loss {history['train_loss'][epoch]:.4f}  "
              f"validation accuracy {history['val_accuracy'][epoch]:.2%}")

    found = gj.load_checkpoint(best.path, model)  # the weights of the best epoch
    x, y = val.batch(range(len(val)))
    guesses = training.predict(model, x).argmax(axis=1)
    print(f"best epoch {found.epoch}: {np.mean(guesses == y):.2%} of {len(y)} validation samples right")
    print("guessed", guesses[:12].tolist())
    print("true   ", y[:12].tolist())


if __name__ == "__main__":
    main()
