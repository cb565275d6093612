"""The texts to score: which workloads there are, and the same prose for every contender. Standard library only."""

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

PROSE = Path(__file__).parent / "data" / "world_factbook.tsv"

QUESTIONS = (
    "history of {}",
    "when did {} become independent",
    "who governs {} today and how was the government chosen",
    "wars and treaties that shaped the borders of {}",
    "economy, trade and natural resources of {}",
    "elections and political parties in {}",
)


@dataclass(frozen=True)
class Workload:
    """What is scored in one call: `queries` queries, each against its own `documents` passages.

    Attributes:
        words: Fewest and most words of a passage; the lengths between are equally likely.
    """

    name: str
    queries: int
    documents: int
    words: tuple[int, int]

    @property
    def is_memory(self) -> bool:
        """Whether it is there to show memory and linearity, and not speed."""
        return self.name.startswith("M-")

    @property
    def pairs(self) -> int:
        """Pairs of one call."""
        return self.queries * self.documents

    def first(self, pairs: int) -> "Workload":
        """The same kind of texts, of about so many pairs at most."""
        documents = min(self.documents, pairs)
        return replace(self, documents=documents, queries=min(self.queries, max(pairs // documents, 1)))

    def __str__(self) -> str:
        query = "query" if self.queries == 1 else "queries"
        fewest, most = self.words
        return f"{self.queries} {query} x {self.documents:,} passages of {fewest}-{most} words"


# A query and the passages to score against it.
Group = tuple[str, list[str]]

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", 1, 100, (60, 200)),
        Workload("W1-20", 1, 20, (60, 200)),
        Workload("W2", 1, 1000, (10, 400)),
        Workload("W2-300", 1, 300, (10, 400)),
        Workload("W2-100", 1, 100, (10, 400)),
        Workload("W3", 64, 32, (20, 100)),
        Workload("W3-8", 8, 32, (20, 100)),
        Workload("W4", 1, 10, (10, 30)),
        Workload("M-1k", 1, 1_000, (20, 120)),
        Workload("M-10k", 1, 10_000, (20, 120)),
        Workload("M-100k", 1, 100_000, (20, 120)),
        # Not timed: short and truncated passages on which all contenders must agree.
        Workload("check", 2, 16, (5, 500)),
        Workload("quick", 1, 30, (60, 200)),
    )
}


@cache
def prose() -> list[tuple[str, str]]:
    """(name, paragraph) of each line of the committed prose."""
    lines = PROSE.read_text(encoding="utf-8").splitlines()
    return [(name, paragraph) for name, paragraph in (line.split("\t") for line in lines)]


def make_groups(workload: Workload, seed: int = 0) -> list[Group]:
    """The queries and passages of one call."""
    return make_calls(workload, 1, seed)[0]


def make_calls(workload: Workload, count: int, seed: int = 0) -> list[list[Group]]:
    """The texts of several calls: equal for equal arguments, no passage twice, and in each call the same word counts.

    A passage starts where a sentence starts and runs on, into the next paragraph if need be, until it has its words.
    Passages of large workloads overlap, but no two are equal.
    """
    chance = random.Random(f"{workload}/{seed}")
    paragraphs = prose().copy()
    chance.shuffle(paragraphs)
    words = [word for _, paragraph in paragraphs for word in paragraph.split()]
    fewest, most = workload.words
    lengths = [[chance.randint(fewest, most) for _ in range(workload.documents)] for _ in range(workload.queries)]
    starts = [
        place + 1
        for place, word in enumerate(words[: -most - 1])
        if re.search(r"[.!?][)\"”’]*$", word) and len(word) > 3
    ]
    seen: set[str] = set()

    def next_passage(length: int) -> str:
        while True:
            start = chance.choice(starts)
            passage = " ".join(words[start : start + length])
            if passage not in seen:
                seen.add(passage)
                return passage

    def next_query() -> str:
        return chance.choice(QUESTIONS).format(chance.choice(paragraphs)[0])

    return [[(next_query(), [next_passage(length) for length in group]) for group in lengths] for _ in range(count)]
