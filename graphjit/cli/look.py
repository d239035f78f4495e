"""``graphjit predict`` and ``graphjit analyze``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from graphjit.cli.options import JsonPath, Runs, Threads
from graphjit.cli.screen import counting, draw_if_possible, microseconds, plain_table, screen, write_results
from graphjit.cli.train import use_threads
from graphjit.nn import functional as F
from graphjit.training import analysis, folders, study
from graphjit.training.curvature import hessian_eigenvalues
from graphjit.training.recipe import Parts, build, make_optimizer, prepare

RunFolder = Annotated[Path | None, typer.Argument(metavar="RUN", show_default="the newest",
                                                  help="The run folder of the model.")]
WIDTHS = (32, 64, 128, 256, 512)
BATCHES = (8, 32, 128, 512)
GRID = 100  # samples that a picture shows


class Kind(StrEnum):
    """What ``analyze`` looks at."""

    performance = "performance"
    scaling = "scaling"
    hessian = "hessian"


class Over(StrEnum):
    """What ``analyze --type scaling`` makes larger."""

    width = "width"
    batch = "batch"


def _open(run: Path | None, runs: Path, console: Console) -> folders.Run:
    folder = folders.newest(runs) if run is None else run
    found = folders.read_run(folder)
    console.print(f"model         {folder}")
    return found


def predict(
    run: RunFolder = None, runs: Runs = Path("runs"),
    show_examples: Annotated[int, typer.Option(min=1, help="How many test samples to show.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Chooses them.")] = 0, json_path: JsonPath = None,
) -> None:
    """Show what a trained model takes test samples for, as a table and, of images, as a picture.

    Examples:

    graphjit predict --show-examples 10

    graphjit predict runs/digits-mlp-relu-0-1 --json predictions.json
    """
    console = screen(json_path)
    found = _open(run, runs, console)
    shown = study.examples(found, show_examples, seed)
    content = shown.asdict()
    table = plain_table("sample", "true", "predicted", "probability", "")
    for row in content["examples"]:
        table.add_row(str(row["index"]), row["true"], row["predicted"], f"{row['probability']:.1%}",
                      "" if row["true"] == row["predicted"] else "wrong")
    console.print(table)
    console.print(f"[bold]test accuracy {shown.accuracy:.2%}[/] of {shown.of} samples")
    if shown.samples.ndim > 2:
        def picture() -> list[Path]:
            from graphjit.plots import sample_grid
            path = folders.new_file(found.folder / "predictions.png")
            sample_grid(_images(shown.samples[:GRID]), shown.true[:GRID].tolist(), shown.predicted[:GRID].tolist(),
                        shown.classes, path=path)
            return [path]
        draw_if_possible(console, picture)
    write_results(json_path, {"run": str(found.folder), **content}, console)


def _images(samples: Any) -> Any:
    """Images (n, channels, h, w) as (n, h, w) or (n, h, w, channels), series (n, 1, length) as (n, length)."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.transpose(0, 2, 3, 1)


def analyze(
    run: RunFolder = None, runs: Runs = Path("runs"),
    kind: Annotated[Kind, typer.Option("--type", help="Time and memory of a step; time of a step as width or batch "
                                       "grow; largest eigenvalues of the Hessian of the loss.")] = Kind.performance,
    over: Annotated[Over, typer.Option(help="What grows (scaling).")] = Over.width,
    eigenvalues: Annotated[int, typer.Option(min=1, help="How many (hessian).")] = 10,
    samples: Annotated[int, typer.Option(min=2, help="Training samples the loss is the mean of (hessian).")] = 500,
    budget: Annotated[float, typer.Option(min=0.0, help="Seconds to spend on each time measured.")] = 0.3,
    threads: Threads = None, json_path: JsonPath = None,
) -> None:
    """Look into a trained model: what its training step costs, how that grows, how its loss curves.

    Numbers and picture are written to the run folder.

    Examples:

    graphjit analyze --type performance

    graphjit analyze --type scaling --over batch

    graphjit analyze --type hessian --eigenvalues 20
    """
    console = screen(json_path)
    use_threads(threads)
    found = _open(run, runs, console)
    parts = prepare(found.settings)
    match kind:
        case Kind.performance:
            content, picture = _performance(found, parts, budget, console)
        case Kind.scaling:
            content, picture = _scaling(found, parts, over, budget, console)
        case Kind.hessian:
            content, picture = _hessian(found, parts, eigenvalues, samples, console)
    path = folders.new_file(found.folder / f"analysis-{kind.value}.json")
    folders.write_json(path, content)
    console.print(f"numbers       {path}")
    image = folders.new_file(found.folder / f"analysis-{kind.value}.png")

    def drawn() -> list[Path]:
        picture(image)
        return [image]
    draw_if_possible(console, drawn)
    write_results(json_path, {"run": str(found.folder), "type": kind.value, **content}, console)


Findings = tuple[dict[str, Any], Callable[[Path], object]]  # numbers, and what draws them


def _named(run: folders.Run) -> str:
    return f"{Path(run.settings.dataset).name}, {run.settings.model}, {run.settings.activation}"


def _optimizer(run: folders.Run) -> analysis.MakeOptimizer:
    return lambda parameters: make_optimizer(run.settings, parameters)


def _performance(run: folders.Run, parts: Parts, budget: float, console: Console) -> Findings:
    x, y = parts.train.batch(range(min(run.settings.batch_size, len(parts.train))))
    with counting(console, "measuring", None) as measured:
        found = analysis.performance(run.model(), F.cross_entropy, _optimizer(run), x, y, budget=budget,
                                     on_measure=measured)
    costs = {"eager": found.eager, "compiled": found.compiled}
    table = plain_table("", "eager", "compiled", "ratio")
    for name in ("forward", "backward", "update", "step"):
        slow, fast = (cost.seconds[name] for cost in costs.values())
        table.add_row(name, microseconds(slow), microseconds(fast), f"{slow / fast:.1f} x" if fast else "")
    table.add_row("samples/s", *(f"{cost.samples_per_second:,.0f}" for cost in costs.values()))
    table.add_row("memory of a step", *(f"{cost.memory / 1e6:.2f} MB" for cost in costs.values()))
    table.add_row("first call", *(microseconds(cost.first_call_seconds) for cost in costs.values()))
    console.print(f"batch of {found.batch_size}, {found.parameters} parameters")
    console.print(table)
    longest = plain_table("longest kernels", "us", "share")
    for kernel in found.kernels[:5]:
        longest.add_row(kernel["title"], f"{kernel['us']:.1f}", f"{kernel['share']:.0%}")
    console.print(longest)

    def picture(path: Path) -> object:
        from graphjit.plots import step_times
        return step_times({label: {name: cost.seconds[name] for name in ("forward", "backward", "update")}
                           for label, cost in costs.items()}, path=path, samples=found.batch_size,
                          title=f"Time of a training step: {_named(run)}")
    return found.asdict(), picture


def _scaling(run: folders.Run, parts: Parts, over: Over, budget: float, console: Console) -> Findings:
    settings = run.settings
    what, sizes = ("width of the hidden layers", WIDTHS) if over is Over.width else ("batch size", BATCHES)

    def problem(size: int) -> tuple[Any, Any, Any]:
        wide = replace(settings, hidden=(size,) * len(settings.hidden)) if over is Over.width else settings
        count = settings.batch_size if over is Over.width else size
        places = [i % len(parts.train) for i in range(count)]  # a batch may be larger than the data
        x, y = parts.train.batch(places)
        return build(wide, parts.shape, len(parts.classes)), x, y
    with counting(console, "measuring", len(sizes)) as measured:
        found = analysis.scaling(what, sizes, problem, F.cross_entropy, _optimizer(run), budget=budget,
                                 on_measure=measured)
    table = plain_table(what, "parameters", "eager", "compiled", "ratio")
    for size, parameters, slow, fast in zip(found.sizes, found.parameters, *found.seconds.values(), strict=True):
        table.add_row(str(size), str(parameters), microseconds(slow), microseconds(fast), f"{slow / fast:.1f} x")
    console.print(table)

    def picture(path: Path) -> object:
        from graphjit.plots import scaling_curve
        return scaling_curve(found.sizes, found.seconds, path=path, size_name=what, time_name="time of a training step",
                             title=f"Scaling: {_named(run)}")
    return found.asdict(), picture


def _hessian(run: folders.Run, parts: Parts, count: int, samples: int, console: Console) -> Findings:
    x, y = parts.train.batch(range(min(samples, len(parts.train))))
    with counting(console, "Lanczos", None) as step:
        found = hessian_eigenvalues(run.model(), F.cross_entropy, x, y, count, on_product=step)
    console.print(f"loss {found.loss:.6f} of {found.samples} training samples, {found.parameters} parameters")
    console.print(f"{found.products} Hessian-vector products, {microseconds(found.product_seconds)} each"
                  + ("" if found.converged else "; not all eigenvalues have converged"))
    table = plain_table("", "eigenvalue", "+/-")
    for i, (value, bound) in enumerate(zip(found.eigenvalues, found.bounds, strict=True), 1):
        table.add_row(str(i), f"{value:#.6g}", f"{bound:.1e}")
    console.print(table)

    def picture(path: Path) -> object:
        from graphjit.plots import hessian_spectrum
        return hessian_spectrum(found.eigenvalues, path=path,
                                title=f"Largest eigenvalues of the loss Hessian: {_named(run)}")
    return found.asdict(), picture
