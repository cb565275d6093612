"""The data of these notebooks, and vectors for it that need no download.

`LsaVectors` is a stand-in for an embedding model: latent semantic analysis (Deerwester et al., 1990), fitted on the
passages themselves. Words that occur in the same passages get similar vectors. It is a fair first stage of 1990, not
what you would deploy; the notebooks say where to put a real embedding model.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

DATA = Path("data/factbook")
SENTENCES = re.compile(r"(?<=[a-z\d)]{2}[.!?])\s+(?=[A-Z])|;\s+|\s+(?=note \d)")
"""Between sentences and notes."""


@dataclass(frozen=True)
class Passage:
    """One field of one country's page."""

    id: str
    title: str
    text: str

    @property
    def country(self) -> str:
        return self.title.split(": ")[0]


def read_passages(folder: Path = DATA) -> list[Passage]:
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = map(json.loads, lines)
        return [Passage(record["_id"], record["title"], record["text"]) for record in records]


def read_questions(folder: Path = DATA) -> dict[str, str]:
    """Question id -> question."""
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["_id"]: record["text"] for record in map(json.loads, lines)}


def read_relevant(folder: Path = DATA) -> dict[str, set[str]]:
    """Question id -> ids of the passages that answer it."""
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question, passage, _ = line.split("\t")
        relevant.setdefault(question, set()).add(passage)
    return relevant


def first_sentence(text: str) -> str:
    """Its country, and the first sentence of its passage behind the name of the field."""
    title, _, passage = text.partition(". ")
    return f"{title.partition(':')[0]}: {SENTENCES.split(passage)[0]}"


def best_sentences(encoder, question: str, text: str) -> str:
    """Its country, and the two sentences or notes of its passage that answer the question best, by the encoder."""
    country, _, passage = text.partition(":")
    sentences = SENTENCES.split(passage.strip())
    best = sorted(one.index for one in encoder.rank(question, sentences, top_n=2))
    return f"{country}: {' … '.join(sentences[place] for place in best)}"


@cache
def best_words(encoder, question: str, text: str) -> str:
    """Its country, and the four words of its passage that answer best, with the one before them: for a label."""
    country, _, passage = text.partition(":")
    words = passage.split()
    parts = [" ".join(words[start : start + 4]) for start in range(len(words))]
    best = encoder.rank(question, parts, top_n=1)[0].index
    return f"{country}: …{' '.join(words[max(best - 1, 0) : best + 4])}"


class LsaVectors:
    """Texts to unit vectors, by projection of their tf-idf weights onto the main directions of some texts.

    Args:
        texts: What the word weights and the directions are learned from.
        size: Numbers per vector.
    """

    def __init__(self, texts: Sequence[str], size: int = 256) -> None:
        counts = [Counter(words(text)) for text in texts]
        found_in = Counter(word for count in counts for word in count)
        self.columns = {word: column for column, word in enumerate(w for w, n in found_in.items() if n > 1)}
        self.weights = np.array([np.log(len(texts) / found_in[word]) for word in self.columns], dtype=np.float32)
        self.directions = leading_directions(self._tf_idf(texts), size)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, size) float32; of length 1, or 0 where no word is known."""
        return normalized(self._tf_idf(texts) @ self.directions.T)

    def _tf_idf(self, texts: Sequence[str]) -> np.ndarray:
        matrix = np.zeros((len(texts), len(self.columns)), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(words(text)).items():
                if word in self.columns:
                    matrix[row, self.columns[word]] = 1 + np.log(count)
        return normalized(matrix * self.weights)


def words(text: str) -> list[str]:
    """Lower-case words, without a plural's s."""
    return [re.sub(r"(?<=[^s])s$", "", word) for word in re.findall(r"[^\W\d_]{2,}", text.lower())]


def normalized(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


def leading_directions(matrix: np.ndarray, size: int) -> np.ndarray:
    """An orthonormal basis of the first right singular vectors' span, (size, columns), by subspace iteration."""
    directions = np.random.default_rng(0).standard_normal((size, matrix.shape[1]), dtype=np.float32)
    for _ in range(4):
        directions = (directions @ matrix.T) @ matrix
        triangle = np.linalg.cholesky(directions @ directions.T)
        directions = np.linalg.solve(triangle, directions)
    return directions
