"""The flags that describe a job, the same for every command that takes a job file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.cli.flag_names import FlagNames, flat, given_flags

JobFile = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file; flags override it.")]
Endpoint = Annotated[str | None, typer.Option(help="Address of the S3 store, if it is not AWS.")]
Region = Annotated[str | None, typer.Option(help="Region of the S3 store.")]
Profile = Annotated[str | None, typer.Option(help="Profile in the AWS configuration.")]

SumsTo = Annotated[
    str | None, typer.Option(help="What a pair's word pairs sum to: score (the default), difference or centred.")
]
Reference = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="What replaces every word in a reference: pad, unk, mask, a word.")
]

Similarity = Annotated[str | None, typer.Option(help="cosine, dot, maxsim or meanmaxsim; default: the model's own.")]

TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Let the model's own code run.")]
PickledWeights = Annotated[bool, typer.Option("--pickled-weights", help="Open weights that are not safetensors.")]


# Flags about pairs, which an index of a corpus has no use for.
OF_PAIRS = (
    *("input", "log", "queries", "qrels", "split", "log_format", "depth", "a", "b", "id", "header", "delimiter"),
    *("quotes", "mode", "prompt", "query_groups", "document_groups", "sums_to", "level", "top_k", "store", "index"),
    "task",
)


def job_command(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Add the flags of a job to ``command``, which gets their values as one mapping, ``settings``.

    ``without`` are names of flags that the command does not have.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["settings"]
    parameters = inspect.signature(_settings, eval_str=True).parameters
    flags = {name: one for name, one in parameters.items() if name not in without}

    def with_flags(**given: Any) -> None:
        settings = _settings(**{name: given.pop(name) for name in flags})
        command(**given, settings=settings)

    together = [*own.values(), *flags.values()]
    # The job file is the only argument, and is optional.
    together = [flag.replace(default=None) if flag.name == "job_file" else flag for flag in together]
    with_flags.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {flag.name: flag.annotation for flag in together}
    with_flags.__name__, with_flags.__doc__ = command.__name__, command.__doc__
    return with_flags


def _settings(
    model: Annotated[str | None, typer.Option(help="A sentence-transformers model: a folder, or a hub name.")] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="PLACE", help="A file, folder or glob, local or s3://; repeatable.")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A retrieval log: TREC or MS MARCO run, or predictions.")
    ] = None,
    queries: Annotated[list[str] | None, typer.Option(metavar="FILE", help="The texts of the log's queries.")] = None,
    corpus: Annotated[list[str] | None, typer.Option(metavar="FILE", help="The texts of the documents.")] = None,
    qrels: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Relevance judgments.")] = None,
    beir: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A BEIR folder in place of --queries, --corpus and --qrels.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="The split of --beir's judgments; default test.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="auto (the default), trec, msmarco, scores, predictions or mteb.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Only this many documents of each query, the best ones.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The run directory (the index), local or s3://.")
    ] = None,
    a: Annotated[str | None, typer.Option("--a", metavar="COLUMN", help="Column of the first text.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="COLUMN", help="Column of the second text.")] = None,
    id: Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="Column of the pair's id.")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether CSV and TSV name their columns.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(metavar="SIGN", help="Of CSV and TSV: tab, comma, semicolon, pipe; default: detected.")
    ] = None,
    quotes: Annotated[str | None, typer.Option(help="csv or none (ordinary characters); default: detected.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="symmetric (the default) or retrieval (the default for a log and for late interaction)."),
    ] = None,
    query_prompt: Annotated[str | None, typer.Option(help="Prompt before queries: a name or the text.")] = None,
    document_prompt: Annotated[str | None, typer.Option(help="Prompt before documents.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt before both texts of symmetric pairs.")] = None,
    layer: Annotated[
        int | None, typer.Option(help="The first layer that is integrated over; default -2, of an index -1.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="token, word (the default) or sentence (that of an index).")
    ] = None,
    query_groups: Annotated[
        str | None, typer.Option(help="Groups of queries, where they differ from those of documents.")
    ] = None,
    document_groups: Annotated[str | None, typer.Option(help="Groups of documents, where they differ.")] = None,
    similarity: Similarity = None,
    sums_to: SumsTo = None,
    level: Annotated[
        str | None,
        typer.Option(
            help="pairs (default), or words (default for late interaction): no word pairs, in half the time or less."
        ),
    ] = None,
    reference: Reference = None,
    rule: Annotated[str | None, typer.Option(help="gauss (the default) or riemann.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest residual, as a share of the embedding's length (queries: a tenth of a loose one)."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="A fixed number of integration nodes.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto (the default), float32, tf32, fp16 or bf16.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Word pairs stored of each pair; default 32.")] = None,
    store: Annotated[str | None, typer.Option(help="top (the default), or full for whole matrices.")] = None,
    format: Annotated[str | None, typer.Option(help="parquet (the default) or arrow.")] = None,
    index: Annotated[
        str | None, typer.Option(metavar="INDEX", help="Take the log's documents from this index.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="pairs (the default), or index: build an index of the corpus.")
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Type of an index's values: int8 (the default), float16 or float32.")
    ] = None,
    texts: Annotated[bool | None, typer.Option(help="Whether an index stores the texts; default: yes.")] = None,
    max_removed: Annotated[
        float | None, typer.Option(help="Largest accepted share of an index's documents that the corpus lacks now.")
    ] = None,
    shards: Annotated[int | None, typer.Option(help="Number of shards; default: by the cost.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only this many pairs (documents of an index), the first ones.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Only this many queries (first texts), chosen at random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random sample; default 0.")] = None,
    max_rejects: Annotated[float | None, typer.Option(help="Largest accepted share of unreadable rows.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of a worker, such as 2GiB or 60%.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of worker processes; default: by the resources.")] = None,
    min_workers: Annotated[int | None, typer.Option(help="Smallest number of worker processes.")] = None,
    max_workers: Annotated[
        int | None, typer.Option(help="Largest number of worker processes; an autoscaler may start machines.")
    ] = None,
    ray: Annotated[
        bool | None,
        typer.Option("--ray/--no-ray", help="Run workers with Ray, or in this process; default: by the size."),
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each worker; 0 for the CPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores of each worker.")] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    profile: Profile = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Let the model's own code run.")
    ] = None,
    pickled_weights: Annotated[
        bool | None, typer.Option("--pickled-weights", help="Open weights that are not safetensors.")
    ] = None,
) -> dict[str, Any]:
    """Return the flags as settings of a job; those that were not given are None."""
    return {
        "model": model,
        "input": input or None,
        "log": log or None,
        "queries": queries or None,
        "corpus": corpus or None,
        "qrels": qrels or None,
        "beir": beir,
        "split": split,
        "log_format": log_format,
        "depth": depth,
        "output": output,
        "columns": {"a": a, "b": b, "id": id},
        "header": header,
        "delimiter": delimiter,
        "quotes": quotes,
        "mode": mode,
        "prompts": {"query": query_prompt, "document": document_prompt, "text": prompt},
        "layer": layer,
        "groups": groups or {"query": query_groups, "document": document_groups},
        "similarity": similarity,
        "sums_to": sums_to,
        "level": level,
        "reference": reference,
        "quadrature": {"rule": rule, "tolerance": tolerance, "nodes": nodes},
        "precision": precision,
        "top_k": top_k,
        "store": store,
        "format": format,
        "task": task,
        "index": index,
        "values": values,
        "texts": texts,
        "max_removed": max_removed,
        "shards": shards,
        "limit": limit,
        "sample": sample,
        "seed": seed,
        "max_rejects": max_rejects,
        "memory": memory,
        "workers": {
            "count": workers,
            "min": min_workers,
            "max": max_workers,
            "gpus": gpus,
            "cpus": cpus,
            "ray": ray,
        },
        "storage": {"endpoint_url": endpoint_url, "region": region, "profile": profile},
        "trust_remote_code": trust_remote_code,
        "pickled_weights": pickled_weights,
    }


_BY_NAME: dict[str, Any] = {name: name for name in inspect.signature(_settings).parameters}
# The flag of each setting that has one, such as "columns.a": "--a".
JOB_FLAGS = {path: f"--{name.replace('_', '-')}" for path, name in flat(_settings(**_BY_NAME))}


# The flags of commands that load a model and have no job file.
MODEL_NAMES = FlagNames(
    {
        path: flag
        for path, flag in JOB_FLAGS.items()
        if path
        in ("layer", "groups", "mode", "similarity", "sums_to", "reference", "trust_remote_code", "pickled_weights")
    }
)


def job_names(job_file: Path | None, settings: Mapping[str, Any]) -> FlagNames:
    """Return the flags that errors about a job name in place of its settings."""
    return given_flags(JOB_FLAGS, job_file, settings)
