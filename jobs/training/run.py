"""The life of a training job: its pairs, the workers (this process, or Ray Train's), the model, ``_SUCCESS`` last.

Ray is imported inside: a training by one worker starts none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribution_core.errors import TokenpairError
from attribution_core.training.recipe import TrainingState, check_libraries
from jobs.config.model_folder import check_model, check_one_vector
from jobs.engine.signals import starting_ray, stoppable
from jobs.engine.worker import versions
from jobs.errors import RunError, SourceError, StoreError
from jobs.progress import Progress, counted, duration, make_progress
from jobs.run.record import encoded_record, read_record, tidy
from jobs.run.tables import JOB_FILE, SUCCESS
from jobs.storage.store import Store
from jobs.training.config import TrainConfig
from jobs.training.folders import CHECKPOINTS, STATE_FILE, files_below, remove_folder
from jobs.training.pairs import Labelled, read_labelled
from jobs.training.work import MODEL, ONE_VECTOR, PROGRESS, Task, read_progress, work, write_progress
from jobs.training.worse import is_worse, what_to_do

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

KIND = "training"
# The checkpoint of a version of tokenpair that trained by a loop of its own.
OLD_CHECKPOINT = "checkpoint.pt"
OWN = (SUCCESS, OLD_CHECKPOINT, PROGRESS, JOB_FILE)
RAY_FOLDER = "ray"
# How often Ray Train starts its workers again; each start goes on from the checkpoint.
CRASHES = 3
SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True)
class Trained:
    """The result of a training; ``kept`` is the epoch whose weights the model has, ``before`` the model as it was."""

    url: str
    shift: bool
    epochs: int
    keep: str
    steps: int
    before: float | None
    kept_epoch: int
    kept: float | None
    seconds: float
    pairs: int
    dev_pairs: int
    workers: int = 1
    already_finished: bool = False
    best_epoch: int = 0
    best: float | None = None

    def lines(self) -> list[str]:
        """The summary that a user reads."""
        dev = f" and {self.dev_pairs:,} to measure on" if self.dev_pairs else ""
        lines = [f"pairs    {self.pairs:,} to train on{dev}"]
        if self.before is not None and self.kept is not None:
            which = f"epoch {self.kept_epoch}, the {self.keep} of {self.epochs}"
            lines.append(
                f"dev      Spearman {100 * self.before:.2f} before, {100 * self.kept:.2f} after ({which}; × 100)"
            )
            if is_worse(self.before, self.kept):
                advice = what_to_do(self.keep, self.kept_epoch, self.best_epoch, self.best, self.before)
                lines.append(f"WORSE    on the dev pairs than before training; {advice}")
        lines.append(
            f"time     {duration(self.seconds)} for {counted(self.steps, 'step')} by {counted(self.workers, 'worker')}"
        )
        means = "exact: its references embed to zero" if self.shift else "not shifted"
        lines.append(f"model    {self.url}/{MODEL} ({means})")
        return [f"already finished: {self.url}", *lines] if self.already_finished else lines


def run_training(
    job: TrainConfig, *, quiet: bool = False, echo: Callable[[str], None] = print, restart: bool = False
) -> Trained:
    """Train to the end, or go on with what an earlier start left in the output folder.

    ``echo`` gets notices and a line an epoch (not when ``quiet``), never the summary.

    Raises:
        TokenpairError: for errors that the user can correct.
    """
    say = (lambda _: None) if quiet else echo
    run = Store.open(job.output, job.storage)
    record = read_record(run)
    if record is not None and record["run"].get("kind") != KIND:
        raise RunError(f"{run.url}: holds another run of tokenpair; choose another output")
    anew = restart and record is not None
    if record is None or anew:
        _check_empty(run, OWN if anew else ())
    else:
        _check_same(run, job, record)
    if record is not None and not anew and run.exists(SUCCESS):
        return Trained(url=run.url, **record["run"]["result"], already_finished=True)
    check_libraries()
    check_model(job.model)
    check_one_vector(job.model, ONE_VECTOR)
    train = read_labelled(job, job.train, "train", say)
    dev = None if job.dev is None else read_labelled(job, job.dev, "dev", say)
    if dev is not None and len(set(dev.similarity)) < 2:
        raise SourceError("dev: all scores are the same, and a correlation needs different ones")
    digest = train.digest() + (dev.digest() if dev is not None else "")
    run.check_writable()
    if anew:
        # Only now: a mistyped place or model must not cost the model that is there.
        _wipe(run, job)
        record = None
    found: dict[str, Any] = {"kind": KIND, "versions": versions(), "pairs": digest}
    if record is not None and record["run"].get("pairs") != digest:
        raise RunError(f"{run.url}: was started with other pairs; choose another output, or --restart to start again")
    if run.exists(OLD_CHECKPOINT):
        raise RunError(
            f"{run.url}/{OLD_CHECKPOINT}: an earlier version of tokenpair wrote it, and this one cannot resume from "
            "it; --restart starts again"
        )
    run.replace(JOB_FILE, encoded_record(job.model_dump(mode="json") | {"run": found}))
    if any(name.endswith(STATE_FILE) for name in files_below(run, CHECKPOINTS)):
        say("going on from the checkpoint")
    with make_progress(say, quiet=quiet) as progress:
        progress.phase("loading the model")
        state, workers = _work(Task(job, train, dev), run, _Reports(say, progress))
    trained = _trained(job, run.url, state, train, dev, workers)
    result = {name: value for name, value in asdict(trained).items() if name not in ("url", "already_finished")}
    run.replace(JOB_FILE, encoded_record(job.model_dump(mode="json") | {"run": found | {"result": result}}))
    run.replace(SUCCESS, b"")
    run.remove(PROGRESS)
    for folder in (CHECKPOINTS, RAY_FOLDER):
        remove_folder(run, folder)
    tidy(run)
    return trained


@dataclass(frozen=True)
class _Standing:
    """The state of a training as the progress bar takes it: pairs trained on, each once an epoch, and a plain line."""

    pairs: int
    all_pairs: int
    text: str

    def line(self) -> str:
        return self.text


class _Reports:
    """Prints each epoch once, when it ends, and updates the progress bar."""

    def __init__(self, say: Callable[[str], None], progress: Progress) -> None:
        self._say = say
        self._progress = progress
        self._said: int | None = None

    def __call__(self, state: TrainingState) -> None:
        if self._said is None:
            # What an earlier start has said already.
            self._said = len(state.epochs) if state.step and state.steps_now == 0 else 0
        for one in state.epochs[self._said :]:
            words = [f"loss {one.loss:.4f}"] if one.loss is not None else []
            words += [f"dev Spearman {100 * one.spearman:.2f}"] if one.spearman is not None else []
            words += ["worse than before training"] if one.epoch and is_worse(state.before, one.spearman) else []
            which = f"epoch {one.epoch}" if one.epoch else "before training"
            self._say(f"{which}: {', '.join(words)} ({duration(one.seconds)})")
        self._said = len(state.epochs)
        text = f"step {state.step:,}/{state.steps:,}" + (f", loss {state.loss:.4f}" if state.step else "")
        if state.steps_now and state.step < state.steps:
            text += f", {duration(state.seconds / state.step * (state.steps - state.step))} left"
        self._progress.update(_Standing(state.step * state.batch, state.steps * state.batch, text))


def _work(task: Task, run: Store, report: Callable[[TrainingState], None]) -> tuple[TrainingState, int]:
    """The training in this process, or by Ray Train where there are several workers or a cluster."""
    workers = task.job.workers
    if workers.count == 1 and not os.environ.get("RAY_ADDRESS"):
        return work(task, report), 1
    return _work_on_ray(task, run, report), workers.count


def _work_on_ray(task: Task, run: Store, report: Callable[[TrainingState], None]) -> TrainingState:
    from jobs.engine.ray_crew import connected

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    with starting_ray(), connected() as cluster, stoppable():
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        workers = task.job.workers
        there: Counter[str] = Counter()
        for node in cluster.nodes():
            there.update(node)
        gpus = workers.gpus if workers.gpus is not None else float(there["GPU"] > 0)
        each: dict[str, float] = {"CPU": float(workers.cpus or 1)} | ({"GPU": gpus} if gpus else {})
        short = next((name for name, amount in each.items() if there[name] < amount * workers.count), None)
        if short is not None and not cluster.grows:
            raise RunError(
                f"{counted(workers.count, 'worker')} of {each[short]:g} {short} each do not fit: "
                f"there are {there[short]:g}"
            )
        system, root = run._arrow()
        trainer = TorchTrainer(
            _ray_worker,
            train_loop_config={"task": task},
            scaling_config=ScalingConfig(num_workers=workers.count or 1, use_gpu=bool(gpus), resources_per_worker=each),
            run_config=RunConfig(
                name=RAY_FOLDER,
                storage_path=root,
                storage_filesystem=system,
                failure_config=FailureConfig(max_failures=CRASHES),
            ),
        )
        ended = _fit(trainer)
        _watch(run, report, ended)
        if (error := ended.exception()) is not None:
            raise _blamed(error) from None
    state = read_progress(run)
    if state is None:
        raise RunError(f"{run.url}: the workers ended without an error message")
    report(state)
    return state


def _fit(trainer: TorchTrainer) -> Future[Any]:
    """Begin to train; where a signal stops this process, the training ends with the Ray that it is in.

    In the main thread Ray Train puts a handler of its own in place of ours and exits silently and with success.
    In another thread it does not.
    """
    ended: Future[Any] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    return ended


def _ray_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each of its workers."""
    import ray.train
    from ray.train.huggingface.transformers import prepare_trainer

    task: Task = settings["task"]
    context = ray.train.get_context()
    run = Store.open(task.job.output, task.job.storage)
    work(
        task,
        lambda state: write_progress(run, state),
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        prepared=prepare_trainer,
    )


def _watch(run: Store, report: Callable[[TrainingState], None], ended: Future[Any]) -> None:
    """Report how far the training is, until it has ended."""
    last: TrainingState | None = None
    while not wait([ended], timeout=SECONDS_BETWEEN_LOOKS).done:
        state = None
        with contextlib.suppress(StoreError):  # the workers say it better, if the store stays away
            state = read_progress(run)
        if state is not None and state != last:
            last = state
            report(state)


def _blamed(error: BaseException) -> BaseException:
    """The error that a worker raised, from Ray Train's error."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, TokenpairError):
            return cause
    first = next(iter(failures.values()), error)
    lines = str(first).strip().splitlines() or [type(first).__name__]
    return RunError(f"training failed after {CRASHES} new starts; the same command goes on: {lines[0][:300]}")


def _trained(
    job: TrainConfig, url: str, state: TrainingState, train: Labelled, dev: Labelled | None, workers: int
) -> Trained:
    kept = state.best if job.kept == "best" else state.epochs[-1]
    assert kept is not None, "keep is best only with a dev set"
    return Trained(
        url=url,
        shift=job.shift,
        epochs=job.epochs,
        keep=job.kept,
        steps=state.step,
        before=state.before,
        kept_epoch=kept.epoch,
        kept=kept.spearman,
        seconds=round(state.seconds, 1),
        pairs=len(train),
        dev_pairs=len(dev) if dev is not None else 0,
        workers=workers,
        best_epoch=state.best.epoch if state.best is not None else 0,
        best=state.best.spearman if state.best is not None else None,
    )


def _check_same(run: Store, job: TrainConfig, record: dict[str, Any]) -> None:
    wanted = job.identity()
    differing = [f"{n}: {record.get(n)!r} there, {v!r} now" for n, v in wanted.items() if record.get(n) != v]
    if differing:
        raise RunError(
            f"{run.url}: holds another training (choose another output, or --restart to delete it): "
            + "; ".join(differing)
        )


def _check_empty(run: Store, own: Collection[str]) -> None:
    others = [name for name in run.list("") if name not in own]
    if others:
        raise RunError(
            f"{run.url}: is not empty and not a training of tokenpair (it contains {', '.join(others[:3])}); "
            "choose another output"
        )


def _wipe(run: Store, job: TrainConfig) -> None:
    """Remove a training's own files; ``job.yaml`` goes last.

    Raises:
        RunError: where the model that the job begins with is one of them.
    """
    if Path(job.model).is_relative_to(Path(run.url).resolve()):
        raise RunError(f"{run.url}: holds the model that is to be trained, which --restart would remove; copy it first")
    for name in (SUCCESS, OLD_CHECKPOINT, PROGRESS):
        run.remove(name)
    for folder in (CHECKPOINTS, RAY_FOLDER, MODEL):
        remove_folder(run, folder)
    run.remove(JOB_FILE)
