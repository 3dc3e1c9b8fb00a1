"""The command that makes exact models: ``train``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.cli.flag_names import flat, given_flags
from jobs.cli.flags import Endpoint, JobFile, Profile, Region
from jobs.cli.messages import note, say, told

# The flags that are not called by the last name of their setting.
TRAIN_FLAGS = {"workers.count": "--workers"}


def train(
    context: typer.Context,
    job_file: JobFile = None,
    model: Annotated[str | None, typer.Option(help="The model to start from: a folder, or a name on the hub.")] = None,
    train: Annotated[
        list[str] | None, typer.Option("--train", metavar="PLACE", help="Labelled pairs to train on; repeatable.")
    ] = None,
    dev: Annotated[
        list[str] | None, typer.Option("--dev", metavar="PLACE", help="Labelled pairs to measure on; repeatable.")
    ] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="The scores that there can be.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where the model goes, local or s3://.")] = None,
    a: Annotated[str | None, typer.Option("--a", metavar="COLUMN", help="Column of the first text.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="COLUMN", help="Column of the second text.")] = None,
    score: Annotated[str | None, typer.Option("--score", metavar="COLUMN", help="Column of the score.")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether CSV and TSV name their columns.")] = None,
    shift: Annotated[bool | None, typer.Option(help="An exact model (the default), or the model as it is.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt before every text: a name or the text.")] = None,
    loss: Annotated[str | None, typer.Option(help="cosine (the default) or dot.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the pairs; default 5.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step; default 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate; default 2e-5.")] = None,
    keep: Annotated[str | None, typer.Option(help="best (on the dev set) or last epoch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another number, another order and dropout; default 0.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; several through Ray Train.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs a worker; 0 keeps to the CPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores a worker.")] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what the output folder holds.")] = False,
) -> None:
    """Fine-tune an exact model on labelled pairs; the same command goes on with an unfinished training."""
    settings: dict[str, Any] = {
        "model": model,
        "train": train or None,
        "dev": dev or None,
        "scale": list(scale) if scale is not None else None,
        "output": output,
        "columns": {"a": a, "b": b, "score": score},
        "header": header,
        "shift": shift,
        "prompt": prompt,
        "loss": loss,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "keep": keep,
        "seed": seed,
        "workers": {"count": workers, "gpus": gpus, "cpus": cpus},
        "storage": {"endpoint_url": endpoint_url, "region": region, "profile": profile},
        "trust_remote_code": trust_remote_code,
    }
    flags = {
        path: TRAIN_FLAGS.get(path) or f"--{path.rpartition('.')[2].replace('_', '-')}" for path, _ in flat(settings)
    }
    with told(context, resume=True, names=given_flags(flags, job_file, settings)):
        from jobs.training.config import load_training

        job = load_training(job_file, settings)
        from jobs.training.run import run_training

        for line in run_training(job, quiet=quiet, echo=note, restart=restart).lines():
            say(line)
