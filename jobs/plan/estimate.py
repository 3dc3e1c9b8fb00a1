"""Estimates of a job before anything is computed: its size, its rejects, its work, hours and money."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jobs.config.job import INDEX_LAYER, INDEX_TOLERANCE, JobConfig
from jobs.errors import JobError
from jobs.plan.plan import Plan, make_plan
from jobs.plan.preflight import check_before_planning
from jobs.plan.work import encoding_flops, expected_nodes, layer_sizes, total_flops
from jobs.progress import counted, duration
from jobs.storage.store import Store

# name: (dense TF32 peak in Tflop/s by the maker's data sheet, float32 where there is no TF32; a round on-demand price
# in $ an hour). Prices differ by vendor and month: --price says yours.
ACCELERATORS: dict[str, tuple[float, float]] = {
    "t4": (8.1, 0.5),
    "l4": (60, 0.8),
    "a10g": (35, 1.0),
    "l40s": (183, 1.9),
    "v100": (15.7, 3.0),
    "a100": (156, 3.5),
    "h100": (495, 5.0),
    "h200": (495, 6.0),
}
# The share of the machine's own product rate that a whole pass is taken to reach.
REACHED_ON_CPU, REACHED_ON_GPU = 0.7, 0.5
# What a run of each level has.
LEVELS = {"pairs": "every word pair", "words": "what each word adds, without word pairs"}
MEASURED_SECONDS = 1.0


@dataclass(frozen=True)
class Accelerator:
    """One to estimate for: ``rate`` in operations a second of the whole pass, ``price`` an hour.

    The price is in US dollars where it is that of ``ACCELERATORS``, and in the user's own currency where it was given.
    """

    name: str
    rate: float
    price: float
    in_dollars: bool = False

    def line(self, work: float) -> str:
        """The time and the money that ``work`` floating-point operations take."""
        hours = work / self.rate / 3600
        sign = "$" if self.in_dollars else ""
        cost = hours * self.price
        money = f"{sign}{cost:,.2f}" if cost >= 0.005 or not self.price else f"less than {sign}0.01"
        price = f"{sign}{self.price:g} an hour"
        source = (
            "US dollars, a typical price, set yours with --price"
            if self.in_dollars
            else "your --price, in its currency"
        )
        return (
            f"one {self.name}: {about(hours * 3600)}, {money} at {price} ({source}; {REACHED_ON_GPU:.0%} of its TF32 "
            "peak assumed, not measured)"
        )


def accelerator(name: str | None, price: float | None) -> Accelerator | None:
    """The accelerator of a name; JobError with the names there are."""
    if name is None:
        if price is not None:
            raise JobError("--price: needs --on, which names the accelerator")
        return None
    known = ACCELERATORS.get(name.lower())
    if known is None:
        raise JobError(f"--on: found {name!r}; allowed: {', '.join(ACCELERATORS)}")
    peak, usual = known
    rate = peak * 1e12 * REACHED_ON_GPU
    return Accelerator(name.lower(), rate, usual if price is None else price, in_dollars=price is None)


def about(seconds: float) -> str:
    """An estimated time in words."""
    return "under a second" if seconds < 1 else f"about {duration(seconds)}"


def share_of(share: float) -> str:
    """Return a multiple of the job's operations, in words."""
    if share < 0.95:
        return f"about {share:.0%} of these"
    return f"about {share:.1f} times as many" if share > 1.05 else "about as many"


def plan_lines(
    job_at: Callable[[str], JobConfig],
    chosen: Accelerator | None,
    more: Callable[[Store, Plan, JobConfig], Iterable[str]] = lambda store, plan, job: (),
) -> Iterator[str]:
    """Plan a job in a folder of its own, which is removed again, and return the estimates, line by line.

    ``job_at`` gives the job for an output; ``more`` gives lines about its stored plan. Raises what planning raises.
    """
    with tempfile.TemporaryDirectory(prefix="tokenpair-look-") as folder:
        job = job_at(folder)
        check_before_planning(job)
        store = Store.open(folder)
        plan = make_plan(job, store)
        lines = [*size_lines(plan), *more(store, plan, job)]
    yield from lines
    sizes = layer_sizes(job)
    if sizes is None:
        yield "work      unknown: the model's configuration is not on this machine"
        return
    nodes, assumed = expected_nodes(job, sizes)
    work = total_flops(sizes, plan.work, nodes)
    how = "assumed" if assumed else "set"
    yield f"work      about {work:.1e} floating-point operations ({nodes} nodes a text {how}, lengths estimated)"
    rate, cores = measured_rate(sizes.d)
    seconds = work / (rate * REACHED_ON_CPU)
    yield (
        f"time      this machine: {about(seconds)} ({counted(cores, 'core')}, {rate / 1e9:,.0f} Gflop/s "
        f"measured just now, {REACHED_ON_CPU:.0%} of it reached)"
    )
    if chosen is not None:
        yield f"          {chosen.line(work)}"
    whole = work + encoding_flops(sizes, plan.work)
    for level, other in plan.other_levels.items():
        if level == "index":
            own = job.model_copy(
                update={
                    "layer": INDEX_LAYER,
                    "quadrature": job.quadrature.model_copy(update={"tolerance": INDEX_TOLERANCE}),
                }
            )
            above = layer_sizes(own) or sizes
            share = (total_flops(above, other, expected_nodes(own, above)[0]) + encoding_flops(above, other)) / whole
            yield f"index     with an index of the corpus (tokenpair index) it takes {share_of(share)} operations"
            continue
        share = (total_flops(sizes, other, nodes) + encoding_flops(sizes, other)) / whole
        yield f"level     {job.level}; level: {level} takes {share_of(share)} operations ({LEVELS[level]})"


def size_lines(plan: Plan) -> Iterator[str]:
    """Pairs, texts, lengths, rejects and shards of a plan."""
    for notice in plan.notices:
        yield f"note: {notice}"
    texts = " and ".join(f"{one['texts']:,} × {role}" for role, one in plan.lengths.items())
    if plan.task == "index":
        yield f"corpus    {counted(plan.pairs, 'document')} to index"
    else:
        yield f"pairs     {plan.pairs:,} of {counted(plan.texts, 'distinct text')} ({texts})"
    for role, one in plan.lengths.items():
        rate = plan.calibration.rates[role]
        tokens = min(one["50"] * 100 // rate.characters + rate.extra, rate.limit)
        yield (
            f"lengths   {role}: {one['0']:,} to {one['100']:,} characters; 10 %: {one['10']:,}, 50 %: {one['50']:,}, "
            f"90 %: {one['90']:,}, 99 %: {one['99']:,}; about {counted(tokens, 'token')} at the median"
        )
        if rate.truncated:
            share = rate.truncated / rate.sampled
            yield (
                f"cut       {role}: about {share:.0%} are longer than the {rate.limit} tokens that the model reads "
                f"(estimated from {rate.sampled:,} of them)"
            )
    for reason, count in plan.rejected.items():
        yield f"rejected  {count:,} × {reason}"
    costs = [shard.cost for shard in plan.shards]
    pairs = [shard.pairs for shard in plan.shards]
    mean = sum(costs) / len(costs)
    yield (
        f"shards    {len(costs):,} of {min(pairs):,} to {max(pairs):,} {plan.noun}s; "
        f"the cheapest costs {min(costs) / mean:.2f}, the dearest {max(costs) / mean:.2f} of the mean"
    )


def measured_rate(width: int, seconds: float = MEASURED_SECONDS) -> tuple[float, int]:
    """Floating-point operations a second of this machine's float32 products at a model's width, and its cores."""
    import torch  # for the estimate alone: planning needs none

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    x, weight = torch.randn(4096, width), torch.randn(4 * width, width)
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * 4096 * width * 4 * width / sorted(times)[len(times) // 2], cores
