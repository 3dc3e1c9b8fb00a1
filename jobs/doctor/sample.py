"""The texts that a model is examined with: the built-in example's questions, and documentation to answer them with."""

from __future__ import annotations

from jobs.demo.documents import standard_library_documents
from jobs.demo.questions import QUESTIONS

PAIRS = 12


def sample_pairs(count: int = PAIRS) -> list[tuple[str, str]]:
    """Pairs of a question and a documentation string of every length there is; the same for the same Python."""
    documents = sorted({document.text for document in standard_library_documents()}, key=lambda text: (len(text), text))
    if not documents:  # a Python without documentation strings
        documents = [text for _, text in reversed(QUESTIONS)]
    step = len(documents) / count
    return [(QUESTIONS[at][1], documents[int((at + 0.5) * step)]) for at in range(count)]
