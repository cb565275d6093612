"""Turns passages and questions into ranking tasks: queries, BM25's candidates for each, and which are relevant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import bm25s
import numpy as np
from sources import QueryPassage, Section

CANDIDATES = 100
QUESTION_SOURCES = ("medquad", "policyqa", "selqa", "fairytaleqa", "pubmedqa", "clapnq_dev", "covid_faq")
HALVED_SOURCES = ("medquad", "fairytaleqa", "pubmedqa")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pool:
    """One ranking task of Q queries.

    Attributes:
        name: the source, and how the queries were made where they are synthetic.
        kind: "question", or "long" where sentences, halves of passages or whole ones are the queries.
        candidates: (Q, C) indices into `passages`, BM25's best first; C is 100, or all passages where there are fewer.
        relevant: for each query, the indices of its relevant passages; BM25 may have missed some.
    """

    name: str
    kind: str
    queries: list[str]
    passages: list[str]
    candidates: np.ndarray
    relevant: list[set[int]]

    def found(self) -> np.ndarray:
        """(Q, C) float32: 1 where the candidate is relevant."""
        rows = zip(self.candidates, self.relevant, strict=True)
        return np.array([[candidate in relevant for candidate in row] for row, relevant in rows], np.float32)


def training_pools(pairs: Sequence[QueryPassage], sections: Sequence[Section]) -> list[Pool]:
    """The tasks that constants are chosen on: questions of every source, and long queries made from passages."""
    present = {pair.source for pair in pairs}
    pools = [question_pool(source, pairs, queries=400) for source in QUESTION_SOURCES if source in present]
    pools += section_pools(sections, queries=150)
    pools += [halves_pool(source, pairs, queries=150) for source in HALVED_SOURCES if source in present]
    return pools


def question_pool(source: str, pairs: Sequence[QueryPassage], queries: int) -> Pool:
    """A sample of a source's questions over all of its passages."""
    own = [pair for pair in pairs if pair.source == source]
    passages = list(dict.fromkeys(pair.passage for pair in own))
    index = {passage: i for i, passage in enumerate(passages)}
    answers: dict[str, set[int]] = defaultdict(set)
    for pair in own:
        answers[pair.query].add(index[pair.passage])
    chosen = _sample(list(answers), queries)
    return Pool(source, "question", chosen, passages, bm25_candidates(chosen, passages), [answers[q] for q in chosen])


def section_pools(sections: Sequence[Section], queries: int) -> list[Pool]:
    """Whole textbook passages as queries, and title, heading and first sentence of the same ones.

    Relevant are the other passages under the same heading.
    """
    own = [
        section
        for section in sections
        if section.source == "openstax"
        and len(section.text.split()) >= 40
        and section.heading.lower() not in ("references", "")
    ]
    passages = [section.text for section in own]
    members: dict[tuple[str, str], set[int]] = defaultdict(set)
    for i, section in enumerate(own):
        members[section.title, section.heading].add(i)
    chosen = _sample([i for i, s in enumerate(own) if len(members[s.title, s.heading]) > 2], queries)
    relevant = [members[own[i].title, own[i].heading] - {i} for i in chosen]
    queries_by_name = {
        "openstax, passage to section": [passages[i] for i in chosen],
        "openstax, sentence to section": [
            f"{own[i].title}. {own[i].heading}. {passages[i].split('. ')[0]}." for i in chosen
        ],
    }
    pools = []
    for name, texts in queries_by_name.items():
        # The query's own passage is among them: one candidate more is asked for, and that one dropped.
        found = bm25_candidates(texts, passages, CANDIDATES + 1)
        others = [[c for c in row if c != i][:CANDIDATES] for row, i in zip(found, chosen, strict=True)]
        pools.append(Pool(name, "long", texts, passages, np.array(others), relevant))
    return pools


def halves_pool(source: str, pairs: Sequence[QueryPassage], queries: int) -> Pool:
    """The first half of a passage as the query; relevant is the second half."""
    texts = dict.fromkeys(pair.passage for pair in pairs if pair.source == source)
    words = [text.split() for text in texts if len(text.split()) >= 80]
    second_halves = [" ".join(text[len(text) // 2 :]) for text in words]
    chosen = _sample(range(len(words)), queries)
    first_halves = [" ".join(words[i][: len(words[i]) // 2]) for i in chosen]
    candidates = bm25_candidates(first_halves, second_halves)
    return Pool(f"{source}, half to half", "long", first_halves, second_halves, candidates, [{i} for i in chosen])


def bm25_candidates(queries: Sequence[str], passages: Sequence[str], count: int = CANDIDATES) -> np.ndarray:
    """(Q, C) indices of the best passages by BM25 (bm25s, k1=1.2, b=0.75, English stop words, no stemming)."""
    retriever = bm25s.BM25(k1=1.2, b=0.75)
    retriever.index(bm25s.tokenize(list(passages), stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    found, _ = retriever.retrieve(tokens, k=min(count, len(passages)), show_progress=False)
    return found


def ndcg_at_10(scores: np.ndarray, pool: Pool) -> np.ndarray:
    """(Q,) nDCG@10 of ordering the candidates by these (Q, C) scores; ties keep BM25's order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    discounts = 1 / np.log2(np.arange(2, 12))
    gain = (np.take_along_axis(pool.found(), order, axis=1) * discounts[: order.shape[1]]).sum(1)
    ideal = np.array([discounts[: len(relevant)].sum() for relevant in pool.relevant])
    return gain / ideal


def _sample(items: Sequence[Item], size: int) -> list[Item]:
    if len(items) <= size:
        return list(items)
    chosen = np.random.default_rng(0).choice(len(items), size, replace=False)
    return [items[i] for i in sorted(chosen)]
