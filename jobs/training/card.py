"""The model card: that of sentence-transformers, with additions by tokenpair."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from attribution_core.model.modules import is_shifted
from jobs.training.worse import is_worse, what_to_do

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from attribution_core.training.recipe import TrainingState
    from jobs.training.config import TrainConfig
    from jobs.training.pairs import Labelled

# Where the card of sentence-transformers goes on after its first sentences, and how it loads a model.
FIRST_HEADING = "## Model Details"
LOADS = 'SentenceTransformer("sentence_transformers_model_id")'
INSTALLS = "pip install -U sentence-transformers"
EXAMPLES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
SHIFTED = """
An *exact* model: the token embeddings of a text's reference (the same length, padding in place of every word) are
subtracted before pooling, so that every reference embeds to zero. The token-pair attributions of the paper (Möller,
Nikolaev, Padó, *An Attribution Method for Siamese Encoders*, EMNLP 2023) are then those that sum to the similarity of
the two texts: no part of it is left to the references. Embeddings are not normalised.

Its first module is a class of tokenpair, `attribution_core.training.shift.ShiftedTransformer`, which
sentence-transformers imports only with `trust_remote_code=True` and tokenpair installed.
`attribution_core.model.loading.load_model` allows tokenpair's own classes and no others. `tokenpair explain`,
`tokenpair run` and `Attributor` take the folder as it is.
"""
PLAIN = """
Fine-tuned without a shift. tokenpair's attributions of a pair sum to its score; those of the paper
(`sums_to: difference`) sum to a difference of four scores, three of them with a reference, a text with padding in place
of every word.
"""


def describe_training(job: TrainConfig, model: SentenceTransformer, train: Labelled) -> None:
    """Give the model's card what only the job knows; to be called before the trainer is made."""
    data: Any = model.model_card_data
    base = PurePath(job.model).name if PurePath(job.model).is_absolute() else job.model
    data.model_name = f"{base}, {'shifted and ' if job.shift else ''}fine-tuned with tokenpair"
    data.base_model = base if base == job.model else None
    data.local_files_only = True  # no look-ups on the hub
    data.train_datasets = [{"name": ", ".join(train.files)}]
    # The pairs may be anybody's: none of their texts are shown.
    data.usage_examples = EXAMPLES
    data.widget = [{"source_sentence": EXAMPLES[0], "sentences": EXAMPLES[1:]}]
    data.add_tags("tokenpair")


def model_card(
    job: TrainConfig, model: SentenceTransformer, train: Labelled, dev: Labelled | None, state: TrainingState
) -> str:
    """The README.md of a trained model."""
    from sentence_transformers.base.model_card import generate_model_card

    shifted = is_shifted(model)
    for one in model.model_card_data.train_datasets:
        for shown in ("examples", "examples_table"):
            one.pop(shown, None)
    # Those of earlier starts too, which the library has forgotten.
    model.model_card_data.training_logs = [
        {"Epoch": one.epoch, "Step": one.epoch * state.steps // job.epochs}
        | ({} if one.loss is None else {"Training Loss": one.loss})
        | ({} if one.spearman is None else {f"spearman_{job.loss}": one.spearman})
        for one in state.epochs
    ]
    card = str(generate_model_card(model))
    if shifted:
        loads = 'SentenceTransformer("path/to/this/folder", trust_remote_code=True)'
        card = card.replace(LOADS, loads).replace(INSTALLS, f"{INSTALLS} tokenpair")
    ours = [SHIFTED if shifted else PLAIN, *_training(job, train, dev, state)]
    return card.replace(FIRST_HEADING, "\n".join([*ours, "", FIRST_HEADING]), 1)


def _training(job: TrainConfig, train: Labelled, dev: Labelled | None, state: TrainingState) -> list[str]:
    """The training data and the quality of the weights, in lines of Markdown."""
    low, high = job.scale
    lines = [
        f"- {len(train):,} pairs of {', '.join(train.files)}, scores from {low:g} to {high:g} scaled to 0 to 1",
        f"- prompt before every text: {job.prompt!r}" if job.prompt else "- no prompt of the job's own",
        f"- the weights are those of the {job.kept} of {job.epochs} epochs",
        "",
    ]
    if dev is None:
        return lines
    kept = state.best if job.kept == "best" else state.epochs[-1]
    before = state.before
    if kept is not None and before is not None and is_worse(before, kept.spearman):
        top = state.best or kept
        advice = what_to_do(job.kept, kept.epoch, top.epoch, top.spearman, before)
        lines += [f"**This model is worse on the dev pairs than before training**; {advice}.", ""]
    lines += [f"{len(dev):,} pairs of {', '.join(dev.files)} were measured on after every epoch (Training Logs below)."]
    if job.kept == "best":
        lines += ["The epoch was chosen on these pairs, so its figure is a little high."]
    return lines
