"""What holds for any texts, checked on texts of every kind: in the tests on some hundreds, in the soak on many more."""

from __future__ import annotations

import asyncio
import io
import json
import math
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from onnx_rerank_integrations import InputTypeError, TextCrossEncoder

SAME = 1e-5
"""A score may move so far with its batch mates and the size of its batch."""

# fmt: off
WORDS = [
    "bee", "Honey", "winter", "the", "é", "naïve", "ﬁ", "金丝雀", "서울", "한", "𝕳", "🐤", "👩‍👩‍👧", "ß", "İ", "ǅ",
    "\u0301", "-", "'",
]
SPECIAL = [
    "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>", "<|im_end|>", "[sep]", "##ing", "▁",
]
SPACES = [
    " ", "  ", "\n", "\t", "\r\n", "\x00", "\x0b", "\u00a0", "\u200b", "\u2028", "\u3000", "\ufeff", "\u202e",
]
# fmt: on

any_character = st.characters(codec=None, categories=None)  # all planes, unassigned and private ones and surrogates
texts = st.one_of(
    st.text(any_character, max_size=40),
    st.lists(st.sampled_from([*WORDS, *SPECIAL, *SPACES]), max_size=30).map(" ".join),
    st.lists(st.sampled_from([*WORDS, *SPECIAL, *SPACES]), max_size=30).map("".join),
    st.tuples(st.text(any_character, min_size=1, max_size=3), st.sampled_from([1, 7, 200, 3000])).map(
        lambda part: part[0] * part[1]
    ),
    st.sampled_from(["", " ", "\x00", "\ud800", "a" * 5000, "a " * 5000, "\n" * 300, "\U0010ffff", "nan", "null"]),
)


class Disguised(str):
    """A text that says that it is another one."""

    def __str__(self) -> str:
        return "bees bees bees"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


@dataclass(frozen=True)
class Example:
    """One call: a query, its documents, and how they are shuffled."""

    query: str
    documents: list[str]
    order: list[int]
    batch_size: int


@st.composite
def examples(draw: st.DrawFn, most: int = 30, more: int = 0) -> Example:
    """A call of at most so many drawn texts, and so many more that are made of them and of a drawn number."""
    documents = draw(st.lists(texts, min_size=1, max_size=most))
    rng = random.Random(draw(st.integers(0, 2**32)))
    documents += [mixed(rng, documents[:most]) for _ in range(more)]
    documents += draw(st.lists(st.sampled_from(documents), max_size=3))  # the same text twice
    return Example(
        query=draw(texts),
        documents=documents,
        order=draw(st.permutations(range(len(documents)))),
        batch_size=draw(st.integers(1, 8)),
    )


def mixed(rng: random.Random, drawn: Sequence[str]) -> str:
    """Pieces of drawn texts, the words above and any characters, in any order."""
    pieces = []
    for _ in range(rng.randrange(1, 6)):
        some = rng.choice(drawn)
        start = rng.randrange(len(some) + 1)
        pieces += [
            some[start : start + rng.randrange(60)],
            rng.choice(rng.choice([WORDS, SPECIAL, SPACES])),
            chr(rng.randrange(0x110000)) * rng.randrange(4),
        ]
    rng.shuffle(pieces)
    return "".join(pieces)


def check_core(encoder: TextCrossEncoder, example: Example) -> int:
    """How many texts were scored; AssertionError where something isn't as promised."""
    query, documents = example.query, list(example.documents)

    scores = np.array(encoder.rerank(query, documents))

    assert len(scores) == len(documents)
    assert np.isfinite(scores).all()
    assert documents == example.documents, "an input was touched"
    shuffled = encoder.rerank(query, [documents[place] for place in example.order])
    assert np.abs(np.array(shuffled) - scores[example.order]).max() <= SAME, "a permutation moves scores"
    batched = encoder.rerank(query, documents, batch_size=example.batch_size)
    assert np.abs(np.array(batched) - scores).max() <= SAME, "the size of batches moves scores"
    alone = encoder.rerank_pairs([(query, documents[0])])
    assert abs(alone[0] - scores[0]) <= SAME, "batch mates move scores"
    disguised = encoder.rerank(Disguised(query), [Disguised(document) for document in documents])
    assert disguised == scores.tolist(), "a subclass isn't read by its characters"
    ranked = encoder.rank(query, documents)
    assert sorted(one.index for one in ranked) == list(range(len(documents))), "documents were dropped or doubled"
    assert all(documents[one.index] == one.text for one in ranked)
    assert [one.score for one in ranked] == sorted(scores.tolist(), reverse=True)
    return len(documents)


def check_ranking(indices: Sequence[int], scores: Sequence[float], expected: Sequence[float]) -> None:
    """A whole ranking against the core's sigmoid scores, in input order."""
    assert sorted(indices) == list(range(len(expected)))
    assert np.abs(np.array(scores) - np.array(expected)[list(indices)]).max() <= SAME
    assert all(0 <= score <= 1 for score in scores)
    assert all(later <= earlier for earlier, later in pairwise(scores))


def langchain_door(encoder: TextCrossEncoder) -> Callable[[Example], int]:
    from langchain_core.documents import Document

    from onnx_rerank_integrations.langchain import OnnxRerank

    door = OnnxRerank(model=encoder, top_n=None)

    def check(example: Example) -> int:
        documents = [Document(text, metadata={"place": place}) for place, text in enumerate(example.documents)]
        before = [document.model_copy(deep=True) for document in documents]
        found = door.compress_documents(documents, example.query)
        expected = encoder.rerank(example.query, example.documents, activation="sigmoid")
        check_ranking(
            [one.metadata["place"] for one in found], [one.metadata["relevance_score"] for one in found], expected
        )
        assert [one.page_content for one in found] == [example.documents[one.metadata["place"]] for one in found]
        assert documents == before, "an input was touched"
        again = asyncio.run(door.acompress_documents(documents, example.query))
        assert again == found
        return len(documents)

    return check


def llama_index_door(encoder: TextCrossEncoder) -> Callable[[Example], int]:
    from llama_index.core.schema import NodeWithScore, TextNode

    from onnx_rerank_integrations.llama_index import OnnxRerank

    door = OnnxRerank(model=encoder, top_n=None)

    def check(example: Example) -> int:
        nodes = [
            NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.5)
            for place, text in enumerate(example.documents)
        ]
        contents = [node.node.get_content(metadata_mode="none") for node in nodes]
        found = door.postprocess_nodes(nodes, query_str=example.query)
        expected = encoder.rerank(example.query, contents, activation="sigmoid")
        check_ranking([int(one.node.node_id) for one in found], [float(one.score or 0) for one in found], expected)
        assert [node.score for node in nodes] == [0.5] * len(nodes), "an input was touched"
        return len(nodes)

    return check


def command(encoder: TextCrossEncoder) -> Callable[[Example], int]:
    """``onnx-rerank rank`` over a file of records, in this process."""
    from onnx_rerank_integrations.extras.cli import main

    def check(example: Example) -> int:
        query = example.query.encode("utf-8", "replace").decode().replace("\x00", "")
        output, notes = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(output), redirect_stderr(notes):
            path = Path(folder) / "documents.jsonl"
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in example.documents), encoding="utf-8")
            options = ["--json", "--all", "--activation", "identity", "--model", encoder.model_name]
            assert main(["rank", *options, "--", query, str(path)]) == 0, written(notes)
        records = [json.loads(line) for line in written(output).splitlines()]
        expected = encoder.rerank(query, example.documents)
        assert len(records) == len(expected)
        found = sorted(float(record["score"]) for record in records)
        assert np.abs(np.array(found) - np.array(sorted(expected))).max() <= SAME
        assert all(math.isfinite(score) for score in found)
        return len(records)

    return check


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO


WRONG = [None, 1, 1.5, b"bytes", ["a"], ("a",), {"text": "a"}, float("nan"), object(), True]
"""No texts, whatever stands around them."""


def check_wrong_type(encoder: TextCrossEncoder, documents: list[str], place: int, wrong: Any) -> None:
    """One document that is no text: an error that names its place."""
    place %= len(documents) + 1
    given: list[Any] = [*documents[:place], wrong, *documents[place:]]
    with pytest.raises(InputTypeError, match=f"document {place} must be a str"):
        encoder.rerank("a query", given)
