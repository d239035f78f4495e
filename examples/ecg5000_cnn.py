"""Heartbeats and a convolutional network in one dimension: ECG5000, 140 samples of voltage each, five classes.

Its archive is fetched into the user's cache when it is first needed; without a network put it into a folder and name
that by ``--folder``. Offline there is ``--dataset waves``: three kinds of noisy waves that are made here, to try the
code with; what it says about them says nothing about hearts.

Output on made-up waves:

    $ python examples/ecg5000_cnn.py --dataset waves
    waves: 1200 training samples, 3203 parameters
    epoch  1  training loss 0.9064  validation accuracy 31.00%
    epoch  2  training loss 0.5246  validation accuracy 77.00%
    epoch  3  training loss 0.3737  validation accuracy 81.75%
    ...
    epoch 15  training loss 0.1542  validation accuracy 95.50%
     107 of  116 right: sine
     131 of  133 right: square
     143 of  151 right: saw tooth
    test accuracy 95.25%
"""

import argparse
import sys

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim, training


def waves(n: int, length: int = 140) -> tuple[np.ndarray, np.ndarray]:
    """Sines, square waves and saw teeth of random frequency and phase in noise: (n, 1, length) and their kinds."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    phase = rng.uniform(0, 1, (n, 1)) + rng.uniform(3, 6, (n, 1)) * np.linspace(0, 1, length)
    sine = np.sin(2 * np.pi * phase)
    shapes = np.stack([sine, np.sign(sine), 2 * (phase % 1) - 1])[kind, np.arange(n)]
    return (shapes + 0.9 * rng.standard_normal(shapes.shape))[:, None].astype(np.float32), kind


def main(argv: list[str] | None = None) -> None:
    """Train with validation, early stopping and a schedule, then test once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ecg5000", choices=("ecg5000", "ecg5000-binary", "waves"))
    parser.add_argument("--folder", help="where its files lie")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--samples", type=int, default=2000, help="how many waves to make")
    args = parser.parse_args(argv)
    gj.manual_seed(0)

    if args.dataset == "waves":
        samples, classes = data.TensorDataset(*waves(args.samples)), ("sine", "square", "saw tooth")
    else:
        try:
            table = data.load(args.dataset, folder=args.folder)
        except gj.DatasetUnavailable as error:
            sys.exit(f"{error}\n  Or try the code on made-up waves: --dataset waves")
        # the set keeps 500 beats for training and 4500 for testing: put together and split anew
        parts = [table] if table.test is None else [table, table.test]
        samples = data.TensorDataset(np.concatenate([p.images() for p in parts]), np.concatenate([p.y for p in parts]))
        classes = table.classes
    train, val, test = data.random_split(samples, [0.6, 0.2, 0.2])

    model = nn.Sequential(
        nn.Conv1d(1, 16, kernel_size=7, padding=3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 32, kernel_size=5, stride=2, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(2),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 4, len(classes)))
    opt = optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    print(f"{args.dataset}: {len(train)} training samples, {sum(p.size for p in model.parameters())} parameters")
    history = training.fit(
        model, F.cross_entropy, opt,
        (data.DataLoader(train, batch_size=64, shuffle=True), data.DataLoader(val, batch_size=512)),
        epochs=args.epochs, scheduler=optim.lr_scheduler.CosineAnnealingLR(opt, T_max=args.epochs),
        callbacks=[training.EarlyStopping("val_loss", patience=5)])
    for epoch in range(history.epochs):
        print(f"epoch {epoch + 1:2}  training loss {history['train_loss'][epoch]:.4f}  "
              f"validation accuracy {history['val_accuracy'][epoch]:.2%}")
    x, y = test.batch(range(len(test)))
    right = training.predict(model, x).argmax(axis=1) == y
    for i, name in enumerate(classes):
        print(f"{right[y == i].sum():4} of {(y == i).sum():4} right: {name}")
    print(f"test accuracy {right.mean():.2%}")


if __name__ == "__main__":
    main()
