"""LeNet-5 (LeCun et al., 1998), a module of one's own: convolutions, pools, and three linear layers.

On MNIST, whose files are fetched when they are first needed, or on scikit-learn's small digits (``--dataset digits``),
which are enlarged to the same 28 x 28 pixels.

Output on the small digits (times on a 2-core x86 with AVX-512):

    $ python examples/lenet.py --dataset digits
    digits: 1438 training images, 61706 parameters
    epoch 1  training loss 1.5869  test accuracy 81.62%
    epoch 2  training loss 0.4249  test accuracy 92.48%
    epoch 3  training loss 0.2041  test accuracy 94.99%
    eager    step of 64 images: 15.94 ms
    compiled step of 64 images: 2.78 ms
"""

import argparse
import sys
import time

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import data, nn, optim, training


class LeNet(nn.Module):
    """Images (n, 1, 28, 28) to scores (n, 10)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5), nn.Tanh(), nn.AvgPool2d(2))
        self.classifier = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def main(argv: list[str] | None = None) -> None:
    """Train by a compiled step, compare its speed with the eager one, test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion-mnist", "digits"))
    parser.add_argument("--folder", help="where its files lie")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args(argv)
    gj.manual_seed(0)

    try:
        table = data.load(args.dataset, folder=args.folder)
    except gj.DatasetUnavailable as error:
        sys.exit(f"{error}\n  Or run this example on them: --dataset digits")
    if args.dataset == "digits":  # 8 x 8 pixels of 0 to 16: three by three of each, and a border of two
        images = np.pad(np.kron(table.images() / 16, np.ones((3, 3), np.float32)), ((0, 0), (0, 0), (2, 2), (2, 2)))
        train, test = data.random_split(data.TensorDataset(images, table.y), [0.8, 0.2])
    else:
        train, test = table.dataset(flat=False), table.test.dataset(flat=False)

    model = LeNet()
    opt = optim.Adam(model.parameters(), lr=2e-3)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    compiled = gj.compile(step)
    loader = data.DataLoader(train, batch_size=64, shuffle=True, prefetch=2)
    print(f"{args.dataset}: {len(train)} training images, {sum(p.size for p in model.parameters())} parameters")
    for epoch in range(1, args.epochs + 1):
        losses = [compiled(x, y).item() for x, y in loader]
        found = training.evaluate(model, F.cross_entropy, data.DataLoader(test, batch_size=512))
        print(f"epoch {epoch}  training loss {np.mean(losses):.4f}  test accuracy {found['accuracy']:.2%}")

    x, y = next(iter(loader))
    for name, run in (("eager", step), ("compiled", compiled)):
        x_ = gj.tensor(x)
        times = []
        for _ in range(10):
            begin = time.perf_counter()
            run(x_, y)
            times.append(time.perf_counter() - begin)
        print(f"{name:8} step of {len(x)} images: {1e3 * min(times):.2f} ms")


if __name__ == "__main__":
    main()
