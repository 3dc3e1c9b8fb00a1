"""Statistics over a corpus in words: what each section says, what to do about it, and its cases; for all displays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attribution_core.display.view import model_words
from jobs.analysis.corpus.result import (
    Boilerplate,
    CorpusStatistics,
    Group,
    Hub,
    Hubs,
    Place,
    Position,
    Repeated,
    Sentence,
)
from jobs.progress import counted
from jobs.views.kit.table import Column, Table

# Counts are uneven where their skewness is more than this above that of chance.
SKEWED = 1.0
# So many ids of a group are named.
NAMED = 3


@dataclass(frozen=True)
class Case:
    """One case: what was counted and where, and the texts of its sentences, none in an index without texts."""

    lead: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One part: sentences, what to do ("" for nothing), cases, the largest first, and tables with bars."""

    title: str
    says: tuple[str, ...]
    act: str = ""
    cases: tuple[Case, ...] = ()
    tables: tuple[Table, ...] = ()


def head(found: CorpusStatistics) -> str:
    """Return what was read, in one sentence."""
    read = f"{counted(found.documents, 'document')}, {counted(found.sentences, found.unit)}"
    return f"{read}, explained with {model_words(found.model)}, layer {found.layer}, {found.similarity}."


def sections(found: CorpusStatistics) -> list[Section]:
    """Return every part that was computed, in the order of a display."""
    parts = [
        _same_text(found.same_text) if found.same_text else None,
        _near_sentences(found.near_sentences) if found.near_sentences else None,
        _near_documents(found.near_documents),
        _boilerplate(found.boilerplate, found) if found.boilerplate else None,
        _position(found.position, found.unit),
        *(_hubs(found.hubs, found) if found.hubs else ()),
    ]
    return [part for part in parts if part is not None]


def _same_text(found: Repeated) -> Section:
    title = "The same sentence in several documents"
    if not found.groups:
        return Section(title, ("None, apart from boilerplate. Letter case and white space do not count.",))
    said = (
        f"{counted(found.groups, 'different sentence')} {_is(found.groups)} in more than one document, in "
        f"{counted(found.documents, 'document')} in all. "
        "Letter case and white space do not count; boilerplate is below."
    )
    act = "Documents that share several are versions of one text: index one of them, or they fill the same results."
    return Section(title, (said,), act, tuple(_group(one) for one in found.largest))


def _near_sentences(found: Repeated) -> Section:
    title = "Sentences of different documents that add nearly the same to the embedding"
    act = "Read them side by side: a search cannot tell them apart, so a difference that matters needs another field."
    return _groups(title, _near(found, "sentence"), act, found)


def _near_documents(found: Repeated) -> Section:
    act = "They rank beside each other for every query: index one of each group, or show one result a group."
    return _groups("Documents with nearly the same embedding", _near(found, "document"), act, found)


def _groups(title: str, said: str, act: str, found: Repeated) -> Section:
    """What is said of groups, and what to do where there are any."""
    if not found.groups:
        return Section(title, (said,))
    return Section(title, (said,), act, tuple(_group(one) for one in found.largest))


def _near(found: Repeated, what: str) -> str:
    measured = "what they add" if what == "sentence" else "their embeddings"
    rule = f"the cosine of {measured} is {found.least:g} or more"
    if found.recall == 1:
        rule += f"; every pair of {counted(found.of, what)} was compared"
    else:
        rule += f"; of pairs at {found.least:g} among {counted(found.of, what)}, {found.recall:.0%} were compared"
    if not found.groups:
        return f"None ({rule})."
    documents, groups = counted(found.documents, "document"), counted(found.groups, "group")
    return f"{documents} in {groups} ({rule})." if what == "document" else f"{groups} in {documents} ({rule})."


def _boilerplate(found: Boilerplate, whole: CorpusStatistics) -> Section:
    title = "Boilerplate"
    rule = f"{found.least:,} or more documents"
    if not found.sentences:
        return Section(title, (f"No sentence is in {rule}.",))
    said = [
        f"{counted(found.sentences, 'sentence')} {_is(found.sentences)} in {rule} each; "
        f"{found.documents / whole.documents:.0%} of the documents have one.",
        f"In these documents boilerplate is {_percent(found.own_share)} of the embedding at the mean, and "
        f"{_percent(found.pull)} of the part that points to the mean of the corpus, which all documents share.",
    ]
    act = "Remove it before you index: it makes documents look alike, and matches queries by itself."
    if (found.own_share or 0.0) < 0.01:
        act = "The model all but ignores it. Removing it saves time and changes little."
    cases = tuple(
        Case(
            f"{one.documents:,} documents, {_percent(one.own_share)} of the embedding, {_percent(one.pull)} of what "
            f"points to the mean; first in {one.sentence.document}",
            _texts(one.sentence),
        )
        for one in found.most
    )
    return Section(title, tuple(said), act, cases)


def _position(found: Position, unit: str) -> Section:
    title = "Position"
    if not found.documents:
        return Section(title, (f"No document has more than one {unit}.",))
    first, last = found.tenths[0], found.tenths[-1]
    said = (
        f"The first tenth of a document is {_percent(first.share)} of what its text adds to the embedding, "
        f"{_times(first)} its share of the length; the last tenth is {_percent(last.share)}, {_times(last)}."
    )
    verdicts = {
        "beginnings": "The model favours beginnings, or these documents begin with what they are about (a title).",
        "ends": "The model favours ends, or these documents end with what they are about.",
        "neither": "The model favours neither beginnings nor ends.",
        None: "Whether the model favours an end is open: the intervals are too wide.",
    }
    probe = "tokenpair probe moves sentences, which separates the model from the text."
    acts = {
        "beginnings": f"Put what matters first, or index long documents in parts. {probe}",
        "ends": f"Index long documents in parts. {probe}",
    }
    rest = f"Bars: the share over the length's share; 1 is even. {counted(found.documents, 'document')}."
    tables = (
        _places(f"By {unit}, in reading order", unit, found.sentences),
        _places("By tenth of the text", "tenth", found.tenths),
    )
    return Section(title, (verdicts[found.favours], said, rest), acts.get(found.favours or "", ""), (), tables)


def _places(title: str, what: str, places: Sequence[Place]) -> Table:
    columns = [
        Column(what, [one.name for one in places], label=True),
        Column("documents", [f"{one.documents:,}" for one in places]),
        Column("share", [_percent(one.share) for one in places], meaning="of what all text adds to the embedding"),
        Column("length", [_percent(one.length) for one in places], meaning="share of the characters"),
        Column("ratio", [f"{one.ratio:.2f}" for one in places], meaning="share over length; 1 is even"),
        Column(
            "95 % interval",
            ["" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}" for one in places],
        ),
    ]
    return Table(title, columns, [one.ratio for one in places])


def _hubs(found: Hubs, whole: CorpusStatistics) -> tuple[Section, Section]:
    expected = found.queries * found.nearest / whole.documents
    if found.skewness is None:
        shape = "All documents are there equally often."
    else:
        few = found.skewness > found.chance_skewness + SKEWED
        shape = f"The skewness of these counts is {found.skewness:.1f}, by chance {found.chance_skewness:.1f}: " + (
            "a few documents take many of the results." if few else "no small group of documents takes the results."
        )
    many = f"{found.hub_documents:,}" if found.hub_documents else "No"
    said = [
        f"{counted(found.queries, 'query')}, the {found.nearest} nearest documents of each: a document would be in "
        f"{expected:.3g} of them if all were equally near. {shape}",
        f"{many} document{' is' if found.hub_documents < 2 else 's are'} in many more. {found.never:,} of "
        f"{whole.documents:,} {_is(found.never)} in none; by chance about {found.chance_never:,.0f} would be.",
    ]
    act = (
        ""
        if not found.hub_documents
        else (
            "Read them: where a hub is no answer, it takes the place of one. Subtracting the mean of all "
            "embeddings from documents and queries weakens hubs."
        )
    )
    documents = tuple(
        _hub(one, found, f"document {one.sentence.document}, mostly by its sentence") for one in found.documents
    )
    title = "Documents near many queries (hubs)"
    first = Section(title, tuple(said), act, documents)
    title = f"{whole.unit.capitalize()}s that pull towards many queries"
    if not found.hub_sentences:
        return first, Section(title, ("None lifts the score most in clearly more queries than expected.",))
    said = [
        f"{counted(found.hub_sentences, whole.unit)} {'lifts' if found.hub_sentences == 1 else 'lift'} a document's "
        f"score most in many more queries than expected (if all {whole.unit}s were equally likely)."
    ]
    act = "General statements and boilerplate do this: remove them, or check that they belong to these queries."
    return first, Section(title, tuple(said), act, tuple(_hub(one, found, _where(one)) for one in found.sentences))


def _hub(one: Hub, found: Hubs, where: str) -> Case:
    times = one.queries / one.expected
    share = f"{one.queries:,} of {found.queries:,} queries ({one.queries / found.queries:.0%})"
    return Case(f"{share}, {times:.3g} × the expected number; {where}", _texts(one.sentence))


def _where(one: Hub) -> str:
    return f"in {one.copies:,} documents, first {one.sentence.document}" if one.copies > 1 else _named(one.sentence)


def _group(group: Group) -> Case:
    ids = ", ".join(one.document for one in group.examples[:NAMED])
    more = ", …" if group.documents > len(group.examples) else ""
    close = f", cosine {min(group.cosines):.3f}" if group.cosines else ""
    return Case(f"{group.documents:,} documents ({ids}{more}){close}", _texts(*group.examples))


def _named(sentence: Sentence) -> str:
    return f"document {sentence.document}, number {sentence.number}"


def _texts(*sentences: Sentence) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.text for one in sentences if one.text))


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\u00a0%"


def _times(place: Place) -> str:
    interval = "" if place.low is None or place.high is None else f" ({place.low:.2f} to {place.high:.2f})"
    return f"{place.ratio:.2f}{interval} ×"
