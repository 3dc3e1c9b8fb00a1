"""What the statistics over a corpus return, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# So many cases of everything are returned.
CASES = 10


@dataclass(frozen=True)
class Sentence:
    """A sentence of a document, its number in reading order from 1; ``text`` is None in an index without texts."""

    document: str
    number: int
    text: str | None


@dataclass(frozen=True)
class Group:
    """Sentences or documents that repeat each other.

    ``documents`` have one of them; ``examples`` are the first few and ``cosines`` theirs with the first one.
    """

    documents: int
    examples: tuple[Sentence, ...]
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class Repeated:
    """One kind of repetition: ``groups`` in ``documents`` different documents, the ``largest`` of them.

    ``of`` sentences or documents were compared, and ``recall`` is the expected share of the pairs with exactly the
    ``least`` cosine among them; a group is whole where its pairs chain. ``least`` is None where texts were compared.
    """

    groups: int
    documents: int
    of: int
    least: float | None
    recall: float
    largest: tuple[Group, ...]


@dataclass(frozen=True)
class BoilerplateSentence:
    """A sentence in many documents: ``own_share`` is its mean share ĉ·e / ‖e‖² of a document's embedding, and ``pull``
    of the part of the embedding that points to the corpus's mean; None where no row of it is in the sample."""

    sentence: Sentence
    documents: int
    own_share: float
    pull: float | None


@dataclass(frozen=True)
class Boilerplate:
    """Sentences that at least ``least`` documents have: ``sentences`` different ones, in ``documents`` documents, of
    whose embeddings they have the share ``own_share`` at the mean."""

    least: int
    sentences: int
    documents: int
    own_share: float | None
    pull: float | None
    most: tuple[BoilerplateSentence, ...]


@dataclass(frozen=True)
class Place:
    """What the text at one place of documents adds: ``share`` of what all text adds, ``length`` its share of the text's
    characters, and their ``ratio`` with its 95 % interval, None without one. ``documents`` have the place."""

    name: str
    documents: int
    share: float
    length: float
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Position:
    """By the number of a sentence in documents of two or more, and by tenth of the text. ``favours`` is "beginnings",
    "ends" or "neither", None where the intervals leave it open."""

    documents: int
    sentences: tuple[Place, ...]
    tenths: tuple[Place, ...]
    favours: str | None


@dataclass(frozen=True)
class Hub:
    """A document or sentence near many of the queries.

    ``sentence`` is the sentence, or of a document the one that lifts it most often. ``queries`` counts the queries,
    ``expected`` is that number if all documents or sentences were equally near, and ``copies`` is how many documents
    have the sentence.
    """

    sentence: Sentence
    queries: int
    expected: float
    copies: int = 1


@dataclass(frozen=True)
class Hubs:
    """Which documents are among the ``nearest`` of many of the ``queries``, and which sentences lift these hits most.

    ``skewness`` is that of N_k, in how many queries' k nearest a document is (Radovanović et al. 2010): 0 where all are
    about equally often; large where few have many, and where there are few queries for many documents: compare it with
    ``chance_skewness``, that of nearest documents drawn at random. ``never`` of the documents are among the nearest of
    no query, ``chance_never`` if they were drawn at random. ``hub_documents`` and ``hub_sentences`` count the hubs.
    """

    queries: int
    nearest: int
    skewness: float | None
    chance_skewness: float
    never: int
    chance_never: float
    hub_documents: int
    hub_sentences: int
    documents: tuple[Hub, ...]
    sentences: tuple[Hub, ...]


@dataclass(frozen=True)
class CorpusStatistics:
    """What an index says about its corpus. A part is None where it was left out, and ``notes`` say why.

    ``documents`` and ``sentences`` were read; ``unit`` names what the index calls a sentence here: sentence, word or
    token.
    """

    index: str
    model: str
    layer: int
    similarity: str
    unit: str
    documents: int
    sentences: int
    same_text: Repeated | None
    near_sentences: Repeated | None
    near_documents: Repeated
    boilerplate: Boilerplate | None
    position: Position
    hubs: Hubs | None
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return all of it as values of JSON."""
        return asdict(self)
