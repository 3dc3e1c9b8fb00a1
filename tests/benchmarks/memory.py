"""Peak memory of the contribution pass against the budget it was given.

On a CPU each cell runs in a process of its own, and the peak is the growth of the process's resident set over what it
was when the model was there; on a GPU it is the allocator's own peak over the same base.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe, minilm, read_exactly

from attribution_core import Attributor
from attribution_core.memory import hand_back_freed_memory


class Watch(threading.Thread):
    """Samples the resident set; after ``limit`` seconds it prints the peak and ends the process."""

    def __init__(self, limit: float) -> None:
        super().__init__(daemon=True)
        self.base = self.peak = resident()
        self.running = True
        self.end = time.monotonic() + limit

    def run(self) -> None:
        """Sample until told to stop."""
        while self.running:
            self.peak = max(self.peak, resident())
            if time.monotonic() > self.end:
                print("peak", self.peak - self.base, flush=True)
                os._exit(0)
            time.sleep(0.001)


def resident() -> int:
    """Bytes of the process that are in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(cell: tuple[int, int, int], options: argparse.Namespace) -> int:
    """Peak bytes of one text's contributions; a cell is tokens, nodes and the budget in MiB."""
    tokens, nodes, budget = cell
    torch.set_num_threads(1)
    hand_back_freed_memory()
    quadrature: dict[str, Any] = {"nodes": nodes, "quadrature": "riemann"}
    if options.judged:  # by a tolerance that no text meets: it is judged at the most nodes, and then taken as it is
        quadrature = {"tolerance": 1e-9, "max_nodes": nodes}
    attributor = Attributor(
        options.model or minilm(),
        **quadrature,
        memory=budget << 20,
        groups=options.groups,
        way=options.way,
        layer=options.layer,
        products=options.products,
    )
    attributor.encoder.model.max_seq_length = 512
    small = read_exactly(attributor, 8)
    attributor.contributor.contributions(small)
    texts = read_exactly(attributor, tokens)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        attributor.contributor.contributions(texts)
        return torch.cuda.max_memory_allocated() - base
    watch = Watch(options.seconds)
    watch.start()
    attributor.contributor.contributions(texts)
    watch.running = False
    watch.join()
    return watch.peak - watch.base


def main() -> None:
    """A grid of text lengths, node counts and budgets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[8, 64, 256, 512])
    parser.add_argument("--nodes", nargs="+", type=int, default=[4, 32, 256])
    parser.add_argument("--budgets", nargs="+", type=int, default=[256, 1024], help="MiB")
    parser.add_argument("--groups", default="token")
    parser.add_argument("--way", default="forward", choices=["forward", "reverse"])
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--model", default="", help="a folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--products", default="auto", choices=["auto", "generic", "structured"])
    parser.add_argument("--judged", action="store_true", help="nodes chosen by the residual, not given")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="how long a cell is watched at most: later chunks take what earlier ones took",
    )
    parser.add_argument("--cell", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print("peak", measure(options.cell, options))
        return
    print(f"{describe()}; {options.groups} groups, {options.way}, layer {options.layer}")
    print(f"{'tokens':>7}{'nodes':>7}{'budget MiB':>12}{'peak MiB':>10}{'share':>8}")
    for budget in options.budgets:
        for tokens in options.tokens:
            for nodes in options.nodes:
                cell = (tokens, nodes, budget)
                taken = measure(cell, options) if torch.cuda.is_available() else measure_in_a_process(cell, options)
                peak = taken / 2**20
                print(f"{tokens:>7}{nodes:>7}{budget:>12}{peak:>10.0f}{peak / budget:>8.0%}", flush=True)


def measure_in_a_process(cell: tuple[int, int, int], options: argparse.Namespace) -> int:
    """The same in a process of its own, whose resident set begins anew."""
    command = [sys.executable, __file__, "--cell", *map(str, cell)]
    command += ["--groups", options.groups, "--way", options.way, "--layer", str(options.layer)]
    command += ["--seconds", str(options.seconds), "--model", options.model, "--products", options.products]
    command += ["--judged"] * options.judged
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(out.split("peak")[1])


if __name__ == "__main__":
    main()
