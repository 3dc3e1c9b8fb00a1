"""The model card: what a model was trained on and how, how good it is, and how it is loaded."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from attribution_core.model.modules import is_shifted
from jobs.training.worse import is_worse, what_to_do

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from attribution_core.training.finetune import State
    from jobs.training.config import TrainConfig
    from jobs.training.pairs import Labelled

LOADING = """
A model of sentence-transformers whose first module is a class of tokenpair,
`attribution_core.training.shift.ShiftedTransformer`. The library imports such a class only where it is told to:

```python
from attribution_core.model.loading import load_model

_, model = load_model("this folder")  # allows tokenpair's own classes and no others

from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this folder", trust_remote_code=True)  # with tokenpair installed
```

`tokenpair explain`, `tokenpair run` and `Attributor` take the folder as it is.
"""
SHIFTED = """
An *exact* model: the token embeddings of a text's reference (the same length, padding in place of every word) are
subtracted before pooling, so that every reference embeds to zero. The token-pair attributions of the paper (Möller,
Nikolaev, Padó, *An Attribution Method for Siamese Encoders*, EMNLP 2023) are then those that sum to the similarity of
the two texts: no part of it is left to the references. Embeddings are not normalised.
"""
PLAIN = """
Fine-tuned without a shift. tokenpair's attributions of a pair sum to its score; those of the paper
(`sums_to: difference`) sum to a difference of four scores, three of them with a reference, a text with padding in place
of every word.
"""


def model_card(
    job: TrainConfig, model: SentenceTransformer, train: Labelled, dev: Labelled | None, state: State
) -> str:
    """The README.md of a trained model."""
    shifted = is_shifted(model)
    base = PurePath(job.model).name if PurePath(job.model).is_absolute() else job.model
    head = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    head += ["tags:", "- sentence-transformers", "- sentence-similarity", "- tokenpair"]
    if base == job.model:
        head.append(f"base_model: {base}")
    lines = ["---", *head, "---", "", f"# {base}, {'shifted and ' if shifted else ''}fine-tuned with tokenpair"]
    lines += [SHIFTED if shifted else PLAIN, "## Training", ""]
    low, high = job.scale
    lines += [
        f"- {len(train):,} pairs of {', '.join(train.files)}, scores from {low:g} to {high:g} scaled to 0 to 1",
        f"- mean squared error of the {'cosine' if job.loss == 'cosine' else 'dot product'}, batches of {job.batch} "
        f"pairs, {job.epochs} epochs, learning rate {job.learning_rate:g} after {job.warmup:.0%} of linear warm-up, "
        f"then falling to 0, weight decay {job.weight_decay:g}, seed {job.seed}",
        f"- prompt before every text: {job.prompt!r}" if job.prompt else "- no prompt of the job's own",
        f"- the weights are those of the {job.kept} epoch",
        "",
    ]
    if dev is not None:
        best = state.best if job.kept == "best" else state.epochs[-1]
        before = state.epochs[0].spearman
        if best is not None and before is not None and is_worse(before, best.spearman):
            top = state.best or best
            advice = what_to_do(job.kept, best.epoch, top.epoch, top.spearman, before)
            lines += [f"**This model is worse on the dev pairs than before training**; {advice}.", ""]
        lines += [f"Spearman correlation × 100 on {len(dev):,} pairs of {', '.join(dev.files)}:", ""]
        lines += ["| epoch | training loss | dev Spearman |", "|---|---|---|"]
        for one in state.epochs:
            mark = " (kept)" if one == best else ""
            loss = "" if one.loss is None else f"{one.loss:.4f}"
            spearman = "" if one.spearman is None else f"{100 * one.spearman:.2f}"
            lines.append(f"| {one.epoch or 'before'}{mark} | {loss} | {spearman} |")
        lines += ["", "The kept epoch was chosen on these pairs, so its figure is a little high." if best else ""]
    lines += ["## Loading", LOADING if shifted else "\nAs any model of sentence-transformers.\n"]
    return "\n".join(lines)
