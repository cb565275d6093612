"""A cheap model prunes, a strong one decides."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from onnx_rerank_integrations import InputTypeError, InputValueError, TextCrossEncoder
from onnx_rerank_integrations.core.base import TextCrossEncoderBase
from onnx_rerank_integrations.core.cascade import Cascade
from onnx_rerank_integrations.core.scoring import Floats
from onnx_rerank_integrations.core.types import Pair
from tests.toy import make_toy, toy_score

DOCUMENTS = ["d", "b b b", "z", "c", "a a", "f"]
"""The cheap model doesn't see token types, and so orders some documents otherwise than the strong one."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("small"), inputs=("input_ids", "attention_mask")))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> TextCrossEncoder:
    return TextCrossEncoder(make_toy(tmp_path_factory.mktemp("large")))


@pytest.fixture(scope="module")
def cascade(small: TextCrossEncoder, large: TextCrossEncoder) -> Cascade:
    return TextCrossEncoder.cascade([small, large], keep=[3, 2])


def test_the_last_model_scores_what_the_first_kept(cascade: Cascade, small: TextCrossEncoder) -> None:
    kept = [one.index for one in small.rank("q", DOCUMENTS, top_n=3)]

    ranked = cascade.rank("q", DOCUMENTS)

    assert len(ranked) == 2
    assert {one.index for one in ranked} <= set(kept)
    assert [one.score for one in ranked] == sorted((toy_score("q", DOCUMENTS[i]) for i in kept), reverse=True)[:2]


def test_rerank_scores_every_document_and_pruned_ones_stay_below(cascade: Cascade, small: TextCrossEncoder) -> None:
    order = [one.index for one in small.rank("q", DOCUMENTS)]
    scores = cascade.rerank("q", DOCUMENTS)

    survivors, pruned = order[:3], order[3:]
    assert [scores[i] for i in survivors] == [toy_score("q", DOCUMENTS[i]) for i in survivors]
    assert max(scores[i] for i in pruned) == min(scores[i] for i in survivors) - 1.0
    assert [scores[i] for i in pruned] == sorted((scores[i] for i in pruned), reverse=True)


def test_each_query_prunes_its_own_documents(cascade: Cascade) -> None:
    pairs = [(query, document) for query in ("q", "r r") for document in DOCUMENTS]

    assert cascade.rerank_pairs(pairs) == cascade.rerank("q", DOCUMENTS) + cascade.rerank("r r", DOCUMENTS)


def test_fewer_documents_than_are_kept(cascade: Cascade, large: TextCrossEncoder) -> None:
    assert cascade.rank("q", ["a", "b"]) == large.rank("q", ["a", "b"])
    assert cascade.rank("q", []) == []
    assert len(cascade.rank("q", DOCUMENTS, top_n=1)) == 1


def test_three_stages_and_an_open_end(small: TextCrossEncoder, large: TextCrossEncoder) -> None:
    first = [one.index for one in small.rank("q", DOCUMENTS, top_n=4)]
    second = sorted(first, key=lambda index: -toy_score("q", DOCUMENTS[index]))[:2]
    third = [one.index for one in small.rank("q", DOCUMENTS) if one.index in second]

    ranked = TextCrossEncoder.cascade([small, large, small], keep=[4, 2]).rank("q", DOCUMENTS)

    assert len(ranked) == len(DOCUMENTS)
    assert [one.index for one in ranked][:2] == third


def test_the_first_model_counts_the_tokens_and_the_last_one_answers(tmp_path: Path) -> None:
    """Of three, so that the last isn't the second, and the first isn't the second either."""
    encoders = [
        TextCrossEncoder(make_toy(tmp_path / name, config={"num_labels": 1, "name": name}), activation=activation)
        for name, activation in (("a", "identity"), ("b", "model"), ("c", "sigmoid"))
    ]
    short = TextCrossEncoder(make_toy(tmp_path / "short"), max_length=5)
    cascade = TextCrossEncoder.cascade(encoders, keep=[3, 3, 1])

    assert cascade.activation == "sigmoid"
    assert cascade.config["name"] == "c"
    assert cascade.longest_ranking == 1
    assert len(cascade.rank("q", DOCUMENTS)) == 1
    pairs = [("q", "b b b")]
    assert TextCrossEncoder.cascade([encoders[0], short, short], keep=[2, 1]).token_count(pairs) == 7
    assert TextCrossEncoder.cascade([encoders[0], encoders[1], short], keep=[2, 1]).truncated(pairs) == [True]
    assert TextCrossEncoder.cascade([short, short, encoders[0]], keep=[2, 1]).truncated(pairs) == [False]


class Backwards(TextCrossEncoderBase):
    """Likes best what the toy likes least."""

    def logits(self, pairs: Sequence[Pair], **how: object) -> Floats:
        return np.array([-toy_score(query, document) for query, document in pairs])


def test_the_first_model_of_three_sees_every_document(large: TextCrossEncoder) -> None:
    worst = [one.index for one in large.rank("q", DOCUMENTS)][-2:]

    ranked = TextCrossEncoder.cascade([Backwards(), large, large], keep=[2, 2]).rank("q", DOCUMENTS)

    assert [one.index for one in ranked] == [*worst, *[one.index for one in ranked[2:]]]


def test_no_bar_is_shown_unless_it_is_asked_for(cascade: Cascade, capsys: pytest.CaptureFixture[str]) -> None:
    cascade.logits([("q", document) for document in DOCUMENTS])
    assert capsys.readouterr().err == ""

    cascade.logits([("q", document) for document in DOCUMENTS], show_progress=True)
    assert "6/6" in capsys.readouterr().err


def test_cascades_of_the_same_models_are_equal_and_say_what_they_are(
    small: TextCrossEncoder, large: TextCrossEncoder
) -> None:
    one, same = (TextCrossEncoder.cascade([small, large], keep=[3, 2]) for _ in range(2))

    assert one == same
    assert hash(one) == hash(same)
    assert one != TextCrossEncoder.cascade([small, large], keep=[3])
    assert one != TextCrossEncoder.cascade([large, small], keep=[3, 2])
    assert one != small
    assert repr(one) == f"TextCrossEncoder.cascade([{small!r}, {large!r}], keep=[3, 2])"


def test_folders_will_do_and_it_pickles(tmp_path: Path) -> None:
    folder = make_toy(tmp_path)
    cascade = TextCrossEncoder.cascade([str(folder), folder], keep=[2])

    assert pickle.loads(pickle.dumps(cascade)).rerank("q", DOCUMENTS) == cascade.rerank("q", DOCUMENTS)


@pytest.mark.parametrize(
    ("keep", "message"),
    [([], "one per model"), ([5, 4, 3], "one per model"), ([0], "keep=0"), ([2, 3], "must not grow")],
)
def test_keep_must_fit(keep: list[int], message: str, small: TextCrossEncoder, large: TextCrossEncoder) -> None:
    with pytest.raises(InputValueError, match=message):
        TextCrossEncoder.cascade([small, large], keep=keep)


def test_one_model_or_something_else_is_no_cascade(small: TextCrossEncoder) -> None:
    with pytest.raises(InputValueError, match="two models"):
        TextCrossEncoder.cascade([small], keep=[3])
    with pytest.raises(InputTypeError, match="int"):
        TextCrossEncoder.cascade([small, 3], keep=[3])  # type: ignore[list-item]


def test_langchain_takes_a_cascade_for_a_model(cascade: Cascade) -> None:
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    from langchain_core.documents import Document

    from onnx_rerank_integrations.langchain import OnnxRerank

    documents = [Document(page_content=text) for text in DOCUMENTS]

    kept = OnnxRerank(model=cascade).compress_documents(documents, "q")
    awaited = asyncio.run(OnnxRerank(model=cascade).acompress_documents(documents, "q"))

    assert [one.page_content for one in kept] == [one.text for one in cascade.rank("q", DOCUMENTS)]
    assert kept == awaited


def test_llama_index_takes_a_cascade_for_a_model(cascade: Cascade) -> None:
    pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    from llama_index.core.schema import NodeWithScore, TextNode

    from onnx_rerank_integrations.llama_index import OnnxRerank

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]

    rerank = OnnxRerank(model=cascade, activation="identity")
    kept = rerank.postprocess_nodes(nodes, query_str="q")
    awaited = asyncio.run(rerank.apostprocess_nodes(nodes, query_str="q"))

    ranked = cascade.rank("q", DOCUMENTS)
    assert [(one.text, one.score) for one in kept] == [(one.text, one.score) for one in ranked]
    assert [one.text for one in kept] == [one.text for one in awaited]
