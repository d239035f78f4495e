"""Where a compiled step goes: the graph before and after each pass, the kernels, their source, and their time.

Output, shortened (times on a 2-core x86 with AVX-512):

    $ python examples/look_inside.py
    1. What was recorded, and how many operations each pass leaves:
    recorded 58, simplify 56, fold 55, cse 49, rolls 49, views below 49, simplify again 48, cse again 48, sums ...
    2. The optimized graph, each line with the place in this file it came from:
    ...
      %0: float32[64, 32] = matmul(x, 0.weight.T)  # look_inside.py:65
      %1: float32[64, 32] = add(%0, 0.bias)  # look_inside.py:65
    ...
    3. The report: traces and why, state, memory, work, kernels:
    step   2 traces, 9 kernels (0 compiled, 10 loaded in 10.5 ms)
      trace 1    x float32[5, 20], y float32[5, 1]     first call
      trace 2    x float32[64, 20], y float32[64, 1]   x: axis 0 was 5; y: axis 0 was 5; no new kernel
    ...
        #  kernel                          extent  flops   bytes  from
    ...
        1  add tanh mul sub                    64  4.1 k   17 kB  look_inside.py:65  loss = F.mse_loss(model(x), y)
    ...
    4. A generated kernel, in Python, before Numba makes machine code of it:
    # kernel 1: add tanh mul sub, extent 64   look_inside.py:65  loss = F.mse_loss(model(x), y)
    def k_add_tanh_mul_sub(p0, p1, p2, start, stop):
        for i0 in range(start, stop):
            o1 = i0 * 32
            for i1 in lanes(32):
                v2 = p0[o1 + i1]
                v3 = p1[i1]
                v4 = v2 + v3  # look_inside.py:65 add
                v5 = tanh(v4)  # look_inside.py:65 tanh
    ...
    5. The time of each kernel:
    step   13 kernels, 3.3 us on 1 thread; roofline of one core 1.5 us
    ...
        #  kernel                          extent  flops   bytes      us  share   GF/s   GB/s   calls  from
        0  matmul 64x20x32                     64   82 k   16 kB    0.42   19 %  194.5   37.7    2134  look_insi ...
    ...
"""

import argparse
from pathlib import Path

import numpy as np

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn, optim
from graphjit.ir import Apply
from graphjit.passes import PIPELINE


def main(argv: list[str] | None = None) -> None:
    """Compile a small training step and take it apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/look_inside"), help="folder of picture and profile")
    args = parser.parse_args(argv)

    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = optim.SGD(model.parameters(), lr=0.1)

    @gj.compile
    def step(x, y):
        opt.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        opt.step()
        return loss

    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((64, n)).astype("float32") for n in (20, 1))
    step(x[:5], y[:5])
    step(x, y)  # another size: traced again, and no kernel is compiled

    print("1. What was recorded, and how many operations each pass leaves:")
    graph, counts = step.latest.raw_graph, []
    for name, rewrite in (("recorded", lambda graph: graph), *PIPELINE):
        graph = rewrite(graph)
        counts.append(f"{name} {sum(isinstance(node, Apply) for node in graph.nodes)}")
    print(", ".join(counts))

    print("2. The optimized graph, each line with the place in this file it came from:")
    print(step.graph)

    print("3. The report: traces and why, state, memory, work, kernels:")
    print(step.explain())

    print("4. A generated kernel, in Python, before Numba makes machine code of it:")
    print("# kernel " + next(part for part in step.source().split("# kernel ") if "def k" in part))

    print("5. The time of each kernel:")
    profile = step.profile(x, y)
    print(profile)
    gj.draw_dot(step.graph, args.out / "graph.svg")
    profile.save(args.out / "profile.json")  # for chrome://tracing or ui.perfetto.dev
    print("wrote", (args.out / "graph.svg").as_posix(), "and", (args.out / "profile.json").as_posix())


if __name__ == "__main__":
    main()
