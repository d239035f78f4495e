"""A small GPT that learns to write, character by character, like the reference manual that ships with Python.

The text is ``pydoc_data.topics``, what ``help("CLASSES")`` and its like show. The network is a stack of transformer
layers in which each place sees those before it; the whole step, clipping and schedule included, is compiled.

Output:

    $ python examples/char_gpt.py
    465048 characters of 103 kinds, 117479 parameters
    step  400  loss 2.485 per character
    step  800  loss 1.869 per character
    ...
    step 2000  loss 1.413 per character
     option the in the only
    * Nothor)
           *complex* that dend discriptor a complement mutable of in is not should are executed when statements ...
    ...
"""

import argparse
from pydoc_data.topics import topics

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim

CONTEXT, WIDTH = 64, 64  # characters that the model sees, features of each


class GPT(nn.Module):
    """Characters (n, CONTEXT) to scores of the next one at each place, (n, CONTEXT, characters)."""

    def __init__(self, characters: int):
        super().__init__()
        self.what = nn.Embedding(characters, WIDTH)
        self.where = nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.0, activation="gelu",
                                       batch_first=True, norm_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters)

    def forward(self, ids):
        x = self.what(ids) + self.where(gj.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x, is_causal=True)
        return self.head(self.norm(x))


def main(argv: list[str] | None = None) -> None:
    """Train on random pieces of the text, then write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--write", type=int, default=400, help="characters to write at the end")
    args = parser.parse_args(argv)
    gj.manual_seed(0)
    rng = np.random.default_rng(0)

    text = "\n".join(topics[name] for name in sorted(topics))
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(c) for c in text])
    model = GPT(len(alphabet))
    opt = optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = optim.lr_scheduler.OneCycleLR(opt, max_lr=3e-3, total_steps=args.steps)
    print(f"{len(text)} characters of {len(alphabet)} kinds, {sum(p.size for p in model.parameters())} parameters")

    @gj.compile
    def train_step(pieces):
        opt.zero_grad()
        scores = model(pieces[:, :-1])
        loss = F.cross_entropy(scores.flatten(0, 1), pieces[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss

    losses = []
    for step in range(1, args.steps + 1):
        starts = rng.integers(0, len(ids) - CONTEXT, 16)
        losses.append(train_step(ids[starts[:, None] + np.arange(CONTEXT + 1)]).item())
        scheduler.step()
        if step % (args.steps // 5) == 0:
            print(f"step {step:4}  loss {np.mean(losses[-50:]):.3f} per character")

    @gj.compile
    def next_character(window):
        return gj.softmax(model(window)[0, -1].astype("float64") / 0.7, axis=-1)

    written = list(ids[:CONTEXT])  # the first lines of the manual, for a beginning
    with gj.no_grad():
        for _ in range(args.write):
            chances = next_character(np.array([written[-CONTEXT:]]))
            written.append(rng.choice(len(alphabet), p=chances.numpy()))
    print("".join(alphabet[i] for i in written[CONTEXT:]))


if __name__ == "__main__":
    main()
