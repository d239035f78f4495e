"""The workloads by name: those of the table of targets, and others, so that no compiler is good at the table alone."""

from __future__ import annotations

from benchmarks.kinds import Bag, Call, Chain, ConvNet, Gpt, Hvp, Mlp, Rnn, Window, Workload

TABLE: list[Workload] = [
    Mlp("moons", "MLP 2-16-16-1 ReLU, hinge loss + L2, all 100 samples, SGD", 100, 0.4, "sgd", 0.1,
        slow=("pytensor",), sizes=(2, 16, 16, 1), loss="hinge"),
    Mlp("digits", "64-128-64-10, BatchNorm1d, ReLU, cross-entropy, batch 32, Adam", 32, 0.6, "adam", 1e-3,
        slow=("pytensor",), sizes=(64, 128, 64, 10), norm=True),
    Mlp("digits-dropout", "digits with dropout 0.2", 32, 0.4, "adam", 1e-3, like="digits",
        sizes=(64, 128, 64, 10), norm=True, dropout=0.2),
    Mlp("mnist", "784-128-128-128-10 ReLU, batch 64, SGD momentum 0.9", 64, 0.65, "momentum", 0.01,
        slow=("pytensor", "torch.func"), sizes=(784, 128, 128, 128, 10)),
    Mlp("mnist-tanh", "mnist with tanh", 64, 0.65, "momentum", 0.01, sizes=(784, 128, 128, 128, 10),
        activation="tanh"),
    ConvNet("ecg", "(64,1,140): Conv1d 1-16 k7 p3, 16-32 k5 s2 p2, 32-32 k3 s2 p1, ReLU, linear to 5, Adam",
            64, 0.45, "adam", 1e-3, slow=("torch.compile",), lengths=(140,),
            windows=(Window(1, 16, 7, 1, 3), Window(16, 32, 5, 2, 2), Window(32, 32, 3, 2, 1)),
            dense_sizes=(5,)),
    ConvNet("lenet", "(64,1,28,28): Conv2d 1-8 k3 p1, ReLU, maxpool 2, 8-16 k3 p1, ReLU, maxpool 2, 64, 10, Adam",
            64, 0.3, "adam", 1e-3, slow=("torch.compile",), lengths=(28, 28),
            windows=(Window(1, 8, 3, 1, 1, 2), Window(8, 16, 3, 1, 1, 2)), dense_sizes=(64, 10)),
    Chain("chain", "value and gradients of an elementwise chain, 1,000,000 values", 1_000_000, 0.6,
          slow=("torch.compile", "torch.func")),
    Chain("chain-1k", "chain of 1,000 values", 1_000, 0.3, slow=("torch.func", "pytensor")),
    Chain("chain-f64", "chain in float64", 1_000_000, 0.6, dtype="float64", slow=("torch.compile", "torch.func")),
    Mlp("wide", "1024-2048-2048-1000 ReLU, batch 256, SGD momentum 0.9", 256, 0.8, "momentum", 0.01,
        sizes=(1024, 2048, 2048, 1000)),
    Gpt("gpt", "vocabulary 65, d 128, 4 heads, 2 layers, MLP x4, context 64, batch 8, GELU, causal, Adam",
        8, 0.6, "adam", 1e-3, slow=("torch.compile",)),
    Call("call", "compiled x + 1 on one element", 1, 0.6, slow=("pytensor",)),
]
OTHER: list[Workload] = [
    Mlp("odd", "odd sizes: MLP 37-53-29-3 ReLU, batch 17, Adam", 17, 1.0, "adam", 1e-3, slow=("pytensor",),
        sizes=(37, 53, 29, 3)),
    Mlp("deep", "deep and narrow: 30 layers of 32, tanh, batch 64, SGD momentum 0.9", 64, 1.0, "momentum", 0.01,
        sizes=(32,) * 30 + (10,), activation="tanh"),
    Rnn("rnn", "tanh RNN of 64 over 100 steps of 8 features, batch 16, Adam", 16, 1.0, "adam", 1e-3),
    Mlp("mlp-f64", "float64 MLP 64-256-256-10 tanh, batch 64, SGD momentum 0.9", 64, 1.0, "momentum", 0.01,
        dtype="float64", slow=("pytensor",), sizes=(64, 256, 256, 10), activation="tanh"),
    Bag("bag", "mean of 20 of 10,000 embeddings of 64, linear to 20, batch 64, Adam", 64, 1.0, "adam", 1e-3),
    Hvp("hvp", "Hessian-vector product of an MLP 16-64-64-1 tanh, batch 128", 128, 1.0, slow=("torch.func",),
        sizes=(16, 64, 64, 1)),
]

WORKLOADS: dict[str, Workload] = {w.name: w for w in (*TABLE, *OTHER)}
