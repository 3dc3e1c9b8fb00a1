"""The command that trains exact models, whose attributions sum to the score: ``train``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jobs.cli.flag_names import flat, given_flags
from jobs.cli.flags import Endpoint, JobFile, Profile, Region
from jobs.cli.messages import errors_as_messages, note, say

# The flags whose name differs from the last part of their setting's name.
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
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="The lowest and the highest possible score.")
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder for the model, local or s3://.")] = None,
    a: Annotated[str | None, typer.Option("--a", metavar="COLUMN", help="Column of the first text.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="COLUMN", help="Column of the second text.")] = None,
    score: Annotated[str | None, typer.Option("--score", metavar="COLUMN", help="Column of the score.")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether CSV and TSV name their columns.")] = None,
    shift: Annotated[bool | None, typer.Option(help="Train an exact model (the default), or an unchanged one.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt before every text: a name or the text.")] = None,
    loss: Annotated[str | None, typer.Option(help="cosine (the default) or dot.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default 5.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs of each step; default 16.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate; default 2e-5.")] = None,
    keep: Annotated[str | None, typer.Option(help="best (on the dev set) or last epoch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the order of pairs and of dropout; default 0.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; more than one use Ray Train.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each worker; 0 for the CPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores of each worker.")] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the summary.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the training in the output folder first.")] = False,
) -> None:
    """Fine-tune an exact model on labelled pairs; run the same command again to resume an unfinished training."""
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
    with errors_as_messages(context, resume=True, names=given_flags(flags, job_file, settings)):
        from jobs.training.config import load_training

        job = load_training(job_file, settings)
        from jobs.training.run import run_training

        for line in run_training(job, quiet=quiet, echo=note, restart=restart).lines():
            say(line)
