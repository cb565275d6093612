"""The LlamaIndex door by itself, on a toy whose scores can be added up by hand (tests/toy.py).

Which test holds which behaviour that is seen to go wrong in reranking postprocessors; events and callbacks are in
test_llama_index_events.py (E), engines, agents and a vector store in test_llama_index_engines.py (G).

|  # | behaviour | test |
|---:|---|---|
|  1 | inputs stay as they were | test_the_callers_nodes_stay_as_they_were |
|  2 | plain floats, ordered, top_n | test_scores_are_plain_floats_best_first_and_ties_keep_their_order, test_top_n_* |
|  3 | score_threshold | test_the_threshold_is_in_the_scale_of_the_activation_and_comes_before_top_n |
|  4 | empty, tuples, duplicates | test_nothing_to_rerank_needs_no_model, test_any_iterable_*, test_duplicates_* |
|  5 | odd texts | test_odd_texts_are_ranked_not_fatal |
|  6 | odd queries | test_an_empty_query_is_a_query, test_a_very_long_query_leaves_room_for_the_document |
|  7 | NaN, missing scores | test_nan_raises_and_names_the_node, test_a_model_that_gives_too_few_scores_is_an_error |
|  8 | batches change no scores | test_batches_change_neither_scores_nor_order |
|  9 | async | test_async_gives_what_sync_gives, test_the_loop_ticks_while_a_call_runs, test_a_cancelled_await_*, |
|    | | test_eight_calls_at_once_*, test_two_event_loops_in_a_row, test_a_race_of_threads_loads_once |
| 10 | copies, equality | test_pickle_*, test_deepcopy_*, test_model_copy_*, test_a_spawned_*, test_equal_options_* |
| 11 | strict, silent | test_unknown_options_are_refused, test_nothing_is_printed_warned_or_configured |
| 12 | imports, extras | test_the_door_imports_no_other_framework, test_a_missing_extra_names_the_pip_command |
| 13 | the text that is scored | test_the_scored_text_is_the_users_choice, test_metadata_mode_* |
| 14 | the first stage's score | test_the_retrieval_score_is_kept_and_leaks_into_no_text |
| 23 | serialization | test_every_field_makes_the_round_trip, test_what_cannot_be_serialized_is_refused |
| 24 | query, bare nodes | test_no_query_*, test_query_str_alone_works, test_both_queries_*, test_a_bare_node_* |
| 25 | new NodeWithScores | test_nodes_come_back_whole_in_new_node_with_scores |
| 26 | events and callbacks | all of E |
| 27 | keep_retrieval_score | test_the_retrieval_score_*, test_a_second_pass_keeps_the_first_retrieval_score |
| 28 | kinds of nodes | test_every_kind_of_node_is_scored_by_the_text_it_has |
| 29 | in the framework | all of G |
| 30 | pickle without a warning | test_pickle_gives_a_working_object_without_a_warning |
"""

from __future__ import annotations

import asyncio
import copy
import doctest
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic import ValidationError

from onnx_rerank_integrations import RerankError, ScoreError, TextCrossEncoder, TextCrossEncoderBase
from tests.toy import make_toy, toy_score

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from onnx_rerank_integrations import llama_index as door
from onnx_rerank_integrations.llama_index import OnnxRerank

TEXTS = ["b c", "z", "", "a a a a a a", "b c", "k"]


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def encoder(toy_folder: Path) -> TextCrossEncoder:
    return TextCrossEncoder(toy_folder)


@pytest.fixture
def rerank(toy_folder: Path) -> OnnxRerank:
    return OnnxRerank(model=toy_folder, activation="identity", top_n=None)


def retrieved(*texts: str, **fields: Any) -> list[NodeWithScore]:
    """Nodes as a retriever gives them, with falling scores 0.9, 0.8, ..."""
    return [
        NodeWithScore(node=TextNode(id_=f"n{place}", text=text, **fields), score=0.9 - place / 10)
        for place, text in enumerate(texts)
    ]


def ids(nodes: Iterable[NodeWithScore]) -> list[str]:
    return [scored.node_id for scored in nodes]


def test_scores_are_plain_floats_best_first_and_ties_keep_their_order(rerank: OnnxRerank) -> None:
    expected = sorted(range(6), key=lambda place: -toy_score("q", TEXTS[place]))

    reranked = rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q")

    assert ids(reranked) == [f"n{place}" for place in expected]
    assert ids(reranked).index("n0") + 1 == ids(reranked).index("n4")
    assert [scored.score for scored in reranked] == [toy_score("q", TEXTS[place]) for place in expected]
    assert {type(scored.score) for scored in reranked} == {float}
    assert json.loads(reranked[0].to_json())["score"] == toy_score("q", "z")


@pytest.mark.parametrize(("top_n", "length"), [(1, 1), (3, 3), (6, 6), (99, 6), (None, 6)])
def test_top_n_is_the_most_that_come_back(top_n: int | None, length: int, rerank: OnnxRerank) -> None:
    everything = rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q")
    rerank.top_n = top_n

    assert rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q") == everything[:length]


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True, "3"])
def test_top_n_below_one_is_refused_at_construction_and_on_assignment(
    top_n: object, rerank: OnnxRerank, toy_folder: Path
) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        OnnxRerank(model=toy_folder, top_n=top_n)
    with pytest.raises(ValidationError, match="top_n"):
        rerank.top_n = top_n  # type: ignore[assignment]
    assert rerank.top_n is None


def test_the_defaults_are_three_sigmoid_scores_without_a_threshold(toy_folder: Path) -> None:
    reranked = OnnxRerank(model=toy_folder).postprocess_nodes(retrieved(*TEXTS), query_str="")

    assert [scored.score for scored in reranked] == [1.0, 1.0, 1.0]
    assert ids(reranked)[0] == "n1"  # saturated sigmoids don't tie: the order is decided on the logits


def test_the_threshold_is_in_the_scale_of_the_activation_and_comes_before_top_n(rerank: OnnxRerank) -> None:
    scores = sorted((toy_score("q", text) for text in TEXTS), reverse=True)

    def kept(**options: Any) -> list[float | None]:
        copied = rerank.model_copy(update=options)
        return [scored.score for scored in copied.postprocess_nodes(retrieved(*TEXTS), query_str="q")]

    assert kept(score_threshold=scores[2]) == scores[:3]
    assert kept(score_threshold=scores[2], top_n=2) == scores[:2]
    assert kept(score_threshold=scores[0] + 1) == []
    assert len(kept(score_threshold=0.99, activation="sigmoid")) == 6
    assert kept(score_threshold=1.01, activation="sigmoid") == []


def test_the_callers_nodes_stay_as_they_were(rerank: OnnxRerank) -> None:
    nodes = retrieved(*TEXTS, metadata={"k": "v"})
    before = [scored.model_dump() for scored in nodes]
    objects = list(nodes)
    rerank.keep_retrieval_score = True

    first = rerank.postprocess_nodes(nodes, query_str="q")
    as_first = [scored.model_dump() for scored in first]
    rerank.postprocess_nodes(nodes, query_str="z z z")

    assert [scored.model_dump() for scored in nodes] == before
    assert all(now is then for now, then in zip(nodes, objects, strict=True))
    assert [scored.model_dump() for scored in first] == as_first


def test_nodes_come_back_whole_in_new_node_with_scores(rerank: OnnxRerank) -> None:
    node = TextNode(
        id_="n",
        text="b",
        metadata={"title": "c", "hidden": "z", "lock": threading.Lock()},
        embedding=[0.5],
        excluded_embed_metadata_keys=["hidden", "lock"],
        excluded_llm_metadata_keys=["title"],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="document")},
        text_template="{content} / {metadata_str}",
        metadata_template="{key} = {value}",
    )
    given = NodeWithScore(node=node, score=0.5)

    plain = rerank.postprocess_nodes([given], query_str="q")[0]
    rerank.keep_retrieval_score = True
    kept = rerank.postprocess_nodes([given], query_str="q")[0]

    assert plain is not given
    assert plain.node is node
    assert kept.node is not node
    assert kept.score == plain.score == toy_score("q", "b / title = c")
    changed = {"metadata", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys"}
    for field in type(node).model_fields.keys() - changed:
        assert getattr(kept.node, field) == getattr(node, field), field
    assert kept.metadata == {**node.metadata, "retrieval_score": 0.5}
    assert "retrieval_score" not in node.metadata


def test_a_subclass_of_node_with_score_keeps_its_fields(rerank: OnnxRerank) -> None:
    class Found(NodeWithScore):
        shard: int

    reranked = rerank.postprocess_nodes([Found(node=TextNode(text="b"), shard=3)], query_str="q")

    assert type(reranked[0]) is Found
    assert reranked[0].shard == 3


def test_nothing_to_rerank_needs_no_model(tmp_path: Path) -> None:
    rerank = OnnxRerank(model=tmp_path / "there is none", lazy_load=True)

    assert rerank.postprocess_nodes([], query_str="q") == []
    assert asyncio.run(rerank.apostprocess_nodes([], query_str="q")) == []


def test_any_iterable_of_nodes_will_do(rerank: OnnxRerank) -> None:
    nodes = retrieved(*TEXTS)
    expected = rerank.postprocess_nodes(nodes, query_str="q")

    assert rerank.postprocess_nodes(tuple(nodes), query_str="q") == expected  # type: ignore[arg-type]
    assert rerank.postprocess_nodes(iter(nodes), query_str="q") == expected  # type: ignore[arg-type]


def test_duplicates_each_keep_their_own_place(rerank: OnnxRerank) -> None:
    node = TextNode(id_="same", text="b")
    nodes = [NodeWithScore(node=node, score=score) for score in (0.1, 0.2, 0.3)]
    rerank.keep_retrieval_score = True

    reranked = rerank.postprocess_nodes([*nodes, nodes[0]], query_str="q")

    assert [scored.metadata["retrieval_score"] for scored in reranked] == [0.1, 0.2, 0.3, 0.1]
    assert {scored.score for scored in reranked} == {toy_score("q", "b")}


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "🐤", "\ud800", "a\x00b", "a " * 500_000, "x" * 1_000_000])
def test_odd_texts_are_ranked_not_fatal(text: str, rerank: OnnxRerank) -> None:
    reranked = rerank.postprocess_nodes(retrieved("a", text, "z"), query_str="q")

    assert sorted(ids(reranked)) == ["n0", "n1", "n2"]
    assert next(scored.text for scored in reranked if scored.node_id == "n1") == text


def test_an_empty_query_is_a_query(rerank: OnnxRerank) -> None:
    reranked = rerank.postprocess_nodes(retrieved("b"), query_str="")

    assert reranked[0].score == toy_score("", "b")


def test_a_very_long_query_leaves_room_for_the_document(toy_folder: Path) -> None:
    rerank = OnnxRerank(model=toy_folder, activation="identity", max_length=16)

    reranked = rerank.postprocess_nodes(retrieved("a b", "a z"), query_str="q " * 10_000)

    assert [scored.score for scored in reranked] == [toy_score("q " * 11, text) for text in ("a z", "a b")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_nan_raises_and_names_the_node(mode: str, rerank: OnnxRerank) -> None:
    with pytest.raises(ScoreError, match="index 1, 3"):
        call(rerank, mode, retrieved("a", "b nan", "c", "b nan"), "q")


class Forgetful(TextCrossEncoderBase):
    """An encoder of a user's own that gives one score too few."""

    config: Mapping[str, Any] = {}

    def logits(self, pairs: Any, **options: Any) -> Any:
        return np.zeros(len(pairs) - 1)

    def token_count(self, pairs: Any) -> int:
        raise NotImplementedError

    def truncated(self, pairs: Any) -> list[bool]:
        raise NotImplementedError


def test_a_model_that_gives_too_few_scores_is_an_error() -> None:
    with pytest.raises(ScoreError, match="2 scores for 3 documents"):
        OnnxRerank(model=Forgetful()).postprocess_nodes(retrieved("a", "b", "c"), query_str="q")


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_change_neither_scores_nor_order(batch_size: int, rerank: OnnxRerank) -> None:
    nodes = retrieved(*(f"{'abcdefgh'[place % 8]} " * (1 + place * 7 % 23) for place in range(40)))
    expected = rerank.postprocess_nodes(nodes, query_str="q")

    batched = rerank.model_copy(update={"batch_size": batch_size}).postprocess_nodes(nodes, query_str="q")

    assert ids(batched) == ids(expected)
    assert [one.score for one in batched] == pytest.approx([one.score for one in expected], rel=1e-5)


def call(rerank: OnnxRerank, mode: str, nodes: list[NodeWithScore], query: str | None) -> list[NodeWithScore]:
    if mode == "sync":
        return rerank.postprocess_nodes(nodes, query_str=query)
    return asyncio.run(rerank.apostprocess_nodes(nodes, query_str=query))


async def test_async_gives_what_sync_gives(rerank: OnnxRerank) -> None:
    nodes = retrieved(*TEXTS)

    assert await rerank.apostprocess_nodes(nodes, query_str="q") == rerank.postprocess_nodes(nodes, query_str="q")
    assert await rerank.apostprocess_nodes(nodes, QueryBundle("z")) == rerank.postprocess_nodes(nodes, QueryBundle("z"))


class Waiting:
    """A text function that waits until it is let go, as a slow model would."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, node: BaseNode) -> str:
        self.begun.set()
        assert self.let_go.wait(120), "the event loop stands still"
        return node.get_content(metadata_mode=MetadataMode.NONE)


async def test_the_loop_ticks_while_a_call_runs(encoder: TextCrossEncoder) -> None:
    waiting = Waiting()
    rerank = OnnxRerank(model=encoder, text=waiting)

    running = asyncio.create_task(rerank.apostprocess_nodes(retrieved("a", "b"), query_str="q"))
    while not waiting.begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0.01)
    waiting.let_go.set()

    assert ids(await running) == ["n1", "n0"]


async def test_a_cancelled_await_leaves_it_usable(encoder: TextCrossEncoder) -> None:
    waiting = Waiting()
    rerank = OnnxRerank(model=encoder, text=waiting)

    running = asyncio.create_task(rerank.apostprocess_nodes(retrieved("a"), query_str="q"))
    while not waiting.begun.is_set():
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    waiting.let_go.set()

    assert ids(await rerank.apostprocess_nodes(retrieved("a", "b"), query_str="q")) == ["n1", "n0"]


async def test_no_more_than_max_concurrency_run_at_once(encoder: TextCrossEncoder) -> None:
    running, most = 0, 0
    counting = threading.Lock()

    def text(node: BaseNode) -> str:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        both_began.wait(120)
        with counting:
            running -= 1
        return "a"

    both_began = threading.Barrier(2)
    rerank = OnnxRerank(model=encoder, text=text, max_concurrency=2)

    await asyncio.gather(*(rerank.apostprocess_nodes(retrieved("a"), query_str="q") for _ in range(6)))

    assert most == 2


QUERIES = [f"{letter} q" for letter in "abcdefgh"]


async def test_eight_calls_at_once_give_what_one_after_the_other_gives(rerank: OnnxRerank) -> None:
    rerank.max_concurrency = 4
    serial = [rerank.postprocess_nodes(retrieved(*TEXTS), query_str=query) for query in QUERIES]

    at_once = await asyncio.gather(*(rerank.apostprocess_nodes(retrieved(*TEXTS), query_str=q) for q in QUERIES))

    assert at_once == serial


def test_eight_calls_at_once_in_threads_give_what_one_after_the_other_gives(rerank: OnnxRerank) -> None:
    serial = [rerank.postprocess_nodes(retrieved(*TEXTS), query_str=query) for query in QUERIES]

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda query: rerank.postprocess_nodes(retrieved(*TEXTS), query_str=query), QUERIES))

    assert at_once == serial


def test_two_event_loops_in_a_row(rerank: OnnxRerank) -> None:
    first = asyncio.run(rerank.apostprocess_nodes(retrieved(*TEXTS), query_str="q"))

    assert asyncio.run(rerank.apostprocess_nodes(retrieved(*TEXTS), query_str="q")) == first


def test_a_race_of_threads_loads_once(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_rerank_integrations.core import engine

    opened: list[int] = []
    real = engine.InferenceSession

    def counted(*args: Any, **options: Any) -> Any:
        opened.append(1)
        return real(*args, **options)

    monkeypatch.setattr(engine, "InferenceSession", counted)
    rerank = OnnxRerank(model=toy_folder, lazy_load=True)
    gate = threading.Barrier(8)

    def first_call(_: int) -> list[str]:
        gate.wait()
        return ids(rerank.postprocess_nodes(retrieved("a", "b"), query_str="q"))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(first_call, range(8))) == [["n1", "n0"]] * 8
    assert len(opened) == 1


def test_pickle_gives_a_working_object_without_a_warning(rerank: OnnxRerank, caplog: pytest.LogCaptureFixture) -> None:
    expected = asyncio.run(rerank.apostprocess_nodes(retrieved(*TEXTS), query_str="q"))  # a thread pool is open now

    again = pickle.loads(pickle.dumps(rerank))

    assert caplog.records == []
    assert again == rerank
    assert again.postprocess_nodes(retrieved(*TEXTS), query_str="q") == expected
    assert rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q") == expected


def shout(node: BaseNode) -> str:
    return node.get_content(metadata_mode=MetadataMode.NONE) * 2


def test_pickle_keeps_a_function_and_never_loses_one_in_silence(encoder: TextCrossEncoder) -> None:
    named = OnnxRerank(model=encoder, text=shout)

    assert pickle.loads(pickle.dumps(named)).text is shout
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(OnnxRerank(model=encoder, text=lambda node: "a"))


def test_pickle_says_when_the_model_is_gone(tmp_path: Path) -> None:
    data = pickle.dumps(OnnxRerank(model=make_toy(tmp_path / "toy")))
    (tmp_path / "toy").rename(tmp_path / "elsewhere")

    with pytest.raises((RerankError, OSError), match="toy"):
        pickle.loads(data)


class Unpicklable(LlamaDebugHandler):
    """A callback handler that holds what can be neither pickled nor copied, as clients do."""

    def __init__(self) -> None:
        super().__init__(print_trace_on_end=False)
        self.lock = threading.Lock()


def test_deepcopy_and_pickle_work_with_callback_handlers_that_hold_locks(
    rerank: OnnxRerank, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Unpicklable()
    rerank.callback_manager = CallbackManager([handler])

    copied = copy.deepcopy(rerank)
    again = pickle.loads(pickle.dumps(rerank))
    copied.postprocess_nodes(retrieved("a"), query_str="q")

    assert copied == again == rerank
    assert len(handler.get_event_pairs()) == 1
    assert again.callback_manager.handlers == []
    assert caplog.records == []


def test_deepcopy_shares_the_open_model_and_nothing_that_changes(encoder: TextCrossEncoder) -> None:
    rerank = OnnxRerank(model=encoder, text=["title"])

    copied = copy.deepcopy(rerank)
    assert isinstance(copied.text, list)
    copied.text.append("content")
    copied.top_n = 1

    assert copied.encoder is rerank.encoder
    assert rerank.text == ["title"]
    assert rerank.top_n == 3


def test_model_copy_changes_what_it_is_told_to(rerank: OnnxRerank, tmp_path: Path) -> None:
    nodes = retrieved(*TEXTS)
    other = make_toy(tmp_path / "other", inputs=("input_ids", "attention_mask"))

    one = rerank.model_copy(update={"top_n": 1})
    moved = rerank.model_copy(update={"model": str(other)})
    shorter = rerank.model_copy(update={"max_length": 5})

    assert len(one.postprocess_nodes(nodes, query_str="q")) == 1
    assert one.encoder is rerank.encoder
    assert moved.encoder == TextCrossEncoder(other)
    assert moved.postprocess_nodes(nodes, query_str="q")[0].score == toy_score("q", "z") - 26 * 4 - 0.25 * 5
    assert shorter.postprocess_nodes(nodes, query_str="q")[0].score == toy_score("q", "z")
    assert toy_score("q", "a a a a a a") not in [one.score for one in shorter.postprocess_nodes(nodes, query_str="q")]


def test_assigning_another_model_opens_it(rerank: OnnxRerank, tmp_path: Path) -> None:
    rerank.model = make_toy(tmp_path / "other", head="two")

    assert rerank.postprocess_nodes(retrieved("b"), query_str="q")[0].score == 2 * toy_score("q", "b")


def test_a_spawned_process_reranks_like_its_parent(rerank: OnnxRerank) -> None:
    expected = rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q")

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_rerank_elsewhere, (rerank,)) == [(scored.node_id, scored.score) for scored in expected]


def _rerank_elsewhere(rerank: OnnxRerank) -> list[tuple[str, float | None]]:
    return [(scored.node_id, scored.score) for scored in rerank.postprocess_nodes(retrieved(*TEXTS), query_str="q")]


def test_equal_options_compare_equal(toy_folder: Path, encoder: TextCrossEncoder) -> None:
    opened = OnnxRerank(model=toy_folder)
    asyncio.run(opened.apostprocess_nodes(retrieved("a"), query_str="q"))

    assert opened == OnnxRerank(model=str(toy_folder), lazy_load=False, callback_manager=CallbackManager([]))
    assert opened != OnnxRerank(model=toy_folder, top_n=4)
    assert opened != OnnxRerank(model=toy_folder, metadata_mode=MetadataMode.NONE)
    assert OnnxRerank(model=encoder) == OnnxRerank(model=encoder)
    assert opened != "something else"


def test_unknown_options_are_refused(toy_folder: Path) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        OnnxRerank(model=toy_folder, top_k=3)


def test_a_ready_encoder_takes_no_loading_options(encoder: TextCrossEncoder) -> None:
    with pytest.raises(ValidationError, match=r"(?s)max_length can't be combined .* threads can't be combined"):
        OnnxRerank(model=encoder, max_length=8, threads=1)
    ready = OnnxRerank(model=encoder, activation="identity")
    with pytest.raises(ValidationError, match="max_length can't be combined"):
        ready.max_length = 8

    assert ready.max_length is None
    assert ready.postprocess_nodes(retrieved("b"), query_str="q")[0].score == toy_score("q", "b")


SILENCE = """
import asyncio, logging, sys, warnings
warnings.simplefilter("ignore")  # some versions of LlamaIndex warn when they are imported
from llama_index.core.schema import NodeWithScore, TextNode
before = logging.root.level, list(logging.root.handlers)
warnings.simplefilter("error")
from onnx_rerank_integrations.llama_index import OnnxRerank
rerank = OnnxRerank(model=sys.argv[1], keep_retrieval_score=True)
nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in "ab"]
assert len(rerank.postprocess_nodes(nodes, query_str="q")) == 2
assert len(asyncio.run(rerank.apostprocess_nodes(nodes, query_str="q"))) == 2
OnnxRerank.from_json(rerank.to_json())
assert (logging.root.level, logging.root.handlers) == before
"""


def test_nothing_is_printed_warned_or_configured(toy_folder: Path) -> None:
    assert run_python(SILENCE, str(toy_folder)) == (0, "", "")


def run_python(code: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=250,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_door_imports_no_other_framework() -> None:
    code = """
import sys
import onnx_rerank_integrations
assert not {"llama_index", "langchain_core", "pydantic"} & set(sys.modules)
import onnx_rerank_integrations.llama_index
print(*sorted({"torch", "transformers", "langchain_core", "onnxruntime"} & set(sys.modules)))
"""
    assert run_python(code)[:2] == (0, "\n")  # stderr is LlamaIndex's, which warns when it is imported


def test_a_missing_extra_names_the_pip_command() -> None:
    code = """
import sys
sys.modules["llama_index"] = None
from onnx_rerank_integrations import MissingExtraError
try:
    import onnx_rerank_integrations.llama_index
except MissingExtraError as error:
    print(error)
"""
    status, printed, errors = run_python(code)

    assert (status, errors) == (0, "")
    assert 'pip install "onnx-rerank-integrations[llama-index]"' in printed


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("content", "title: b\nn: 7\n\nz"),
        (["title"], "b"),
        (["title", "content"], "b\nz"),
        (["n", "absent", "title"], "7\nb"),
        (lambda node: node.metadata["title"] + " c", "b c"),
        (shout, "zz"),
    ],
)
def test_the_scored_text_is_the_users_choice(
    text: str | list[str] | Callable[[BaseNode], str], scored: str, rerank: OnnxRerank
) -> None:
    rerank.text = text  # type: ignore[assignment]
    nodes = retrieved("z", metadata={"title": "b", "n": 7, "secret": "y"}, excluded_embed_metadata_keys=["secret"])

    reranked = rerank.postprocess_nodes(nodes, query_str="q")

    assert reranked[0].score == toy_score("q", scored)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_text_function_that_gives_no_text_names_the_node(mode: str, rerank: OnnxRerank) -> None:
    rerank.text = lambda node: None if node.node_id == "n1" else "a"  # type: ignore[assignment,return-value]

    with pytest.raises(TypeError, match="NoneType for document 1"):
        call(rerank, mode, retrieved("a", "b"), "q")


@pytest.mark.parametrize(
    ("mode", "scored"),
    [("embed", "m: b\n\nz"), ("llm", "e: a\n\nz"), ("all", "e: a\nm: b\n\nz"), ("none", "z")],
)
def test_metadata_mode_says_which_metadata_is_scored(mode: str, scored: str, rerank: OnnxRerank) -> None:
    nodes = retrieved(
        "z",
        metadata={"e": "a", "m": "b"},
        excluded_embed_metadata_keys=["e"],
        excluded_llm_metadata_keys=["m"],
    )
    rerank.metadata_mode = MetadataMode(mode)

    assert rerank.postprocess_nodes(nodes, query_str="q")[0].score == toy_score("q", scored)


def test_the_retrieval_score_is_kept_and_leaks_into_no_text(rerank: OnnxRerank) -> None:
    nodes = retrieved("b", "z", metadata={"k": "v"})
    rerank.keep_retrieval_score = True

    reranked = rerank.postprocess_nodes(nodes, query_str="q")

    assert [(scored.node_id, scored.metadata["retrieval_score"]) for scored in reranked] == [("n1", 0.8), ("n0", 0.9)]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED, MetadataMode.NONE):
        expected = [nodes[1].get_content(metadata_mode=mode), nodes[0].get_content(metadata_mode=mode)]
        assert [scored.get_content(metadata_mode=mode) for scored in reranked] == expected


def test_the_retrieval_score_of_a_vector_store_becomes_a_plain_float(rerank: OnnxRerank) -> None:
    given = NodeWithScore(node=TextNode(text="b"))
    given.score = np.float32(0.5)  # as stores assign it; the constructor would convert it
    rerank.keep_retrieval_score = True

    reranked = rerank.postprocess_nodes([given], query_str="q")

    assert type(reranked[0].metadata["retrieval_score"]) is float
    assert json.loads(reranked[0].to_json())["node"]["metadata"] == {"retrieval_score": 0.5}


def test_a_node_without_a_retrieval_score_gets_none(rerank: OnnxRerank) -> None:
    node = TextNode(text="b")
    rerank.keep_retrieval_score = True

    reranked = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str="q")

    assert reranked[0].node is node
    assert node.metadata == {}


def test_a_second_pass_keeps_the_first_retrieval_score(rerank: OnnxRerank) -> None:
    rerank.keep_retrieval_score = True

    once = rerank.postprocess_nodes(retrieved("b"), query_str="q")
    twice = rerank.postprocess_nodes(once, query_str="z z")

    assert twice[0].metadata["retrieval_score"] == 0.9
    assert twice[0].score == toy_score("z z", "b")
    assert twice[0].node.excluded_llm_metadata_keys == ["retrieval_score"]


def test_every_field_makes_the_round_trip(toy_folder: Path) -> None:
    changed: dict[str, Any] = {
        "model": toy_folder,
        "top_n": None,
        "score_threshold": 0.25,
        "text": ["title", "content"],
        "keep_retrieval_score": True,
        "batch_size": 7,
        "timeout": 2.5,
        "max_concurrency": 2,
        "lazy_load": True,
        "max_length": 9,
        "instruction": "Find what the bees do.",
        "prompt": "{query} {document}",
        "warn_truncated": False,
        "label": 0,
        "threads": 1,
        "providers": ["CPUExecutionProvider", ("CPUExecutionProvider", {"use_arena": "0"})],
        "revision": "main",
        "cache_dir": toy_folder,
        "local_files_only": True,
        "model_file": "model.onnx",
        "expected_sha256": "0" * 64,
        "score_cache": 100,
        "optimize": "off",
        "batching": "sorted",
        "backend": "openvino",
        "precision": "bf16",
        "metadata_mode": MetadataMode.LLM,
    }
    for name, field in OnnxRerank.model_fields.items():
        if get_origin(field.annotation) is Literal:
            changed[name] = next(choice for choice in get_args(field.annotation) if choice != field.default)
    rerank = OnnxRerank(**changed, callback_manager=CallbackManager([Unpicklable()]))
    fields = set(OnnxRerank.model_fields) - {"callback_manager"}
    assert changed.keys() == fields, "a field is missing here"
    assert all(getattr(rerank, name) != OnnxRerank.model_fields[name].get_default() for name in fields - {"model"})

    as_dict, as_json = rerank.to_dict(), rerank.to_json()

    assert OnnxRerank.class_name() == as_dict["class_name"] == json.loads(as_json)["class_name"] == "OnnxRerank"
    assert "callback_manager" not in as_dict
    assert OnnxRerank.from_dict(as_dict) == rerank
    assert OnnxRerank.from_json(as_json) == rerank


def test_what_cannot_be_serialized_is_refused(encoder: TextCrossEncoder, toy_folder: Path) -> None:
    with pytest.raises(ValueError, match="model is a live encoder"):
        OnnxRerank(model=encoder).to_json()
    with pytest.raises(ValueError, match="text is a function"):
        OnnxRerank(model=toy_folder, text=shout).to_dict()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("nodes", [[], retrieved("a")])
def test_no_query_is_a_value_error_that_says_so(nodes: list[NodeWithScore], mode: str, rerank: OnnxRerank) -> None:
    with pytest.raises(ValueError, match="needs a query") as caught:
        call(rerank, mode, nodes, None)
    assert isinstance(caught.value, RerankError)


def test_a_query_in_the_wrong_place_says_where_it_goes(rerank: OnnxRerank) -> None:
    with pytest.raises(TypeError, match=r"query_bundle must be a QueryBundle, not str: .*query_str"):
        rerank.postprocess_nodes(retrieved("a"), "q")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="query must be a str, not int"):
        rerank.postprocess_nodes(retrieved("a"), query_str=3)  # type: ignore[arg-type]


def test_query_str_alone_works(rerank: OnnxRerank) -> None:
    by_text = rerank.postprocess_nodes(retrieved("b"), query_str="q")

    assert by_text == rerank.postprocess_nodes(retrieved("b"), QueryBundle("q"))


def test_both_queries_are_refused(rerank: OnnxRerank) -> None:
    with pytest.raises(ValueError, match="both"):
        rerank.postprocess_nodes(retrieved("b"), QueryBundle("q"), "q")


def test_a_bare_node_is_a_type_error_that_says_what_to_do(rerank: OnnxRerank) -> None:
    nodes = [*retrieved("a"), TextNode(text="b")]

    with pytest.raises(TypeError, match=r"node 1 must be a NodeWithScore, not TextNode: wrap it"):
        rerank.postprocess_nodes(nodes, query_str="q")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 3, "a text"])
def test_what_is_no_list_of_nodes_is_told(wrong: Any, rerank: OnnxRerank) -> None:
    with pytest.raises(TypeError, match=f"nodes must be a list of NodeWithScore, not {type(wrong).__name__}"):
        rerank.postprocess_nodes(wrong, query_str="q")


@pytest.mark.parametrize(
    ("node", "scored"),
    [
        (TextNode(text="b"), "b"),
        (TextNode(), ""),
        (ImageNode(image_url="https://example.org/bees.png"), ""),
        (ImageNode(text="b", image_url="https://example.org/bees.png", metadata={"k": "v"}), "k: v b"),
        (IndexNode(text="b", index_id="chapter", obj=TextNode(text="z")), "b"),
        (Document(text="b", metadata={"k": "v"}), "k: v b"),
        (Node(text_resource=MediaResource(text="b")), "b"),
        (Node(image_resource=MediaResource(url="https://example.org/bees.png")), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseNode) else value,
)
def test_every_kind_of_node_is_scored_by_the_text_it_has(node: BaseNode, scored: str, rerank: OnnxRerank) -> None:
    rerank.keep_retrieval_score = True
    nodes = [NodeWithScore(node=node, score=0.5), *retrieved("a", "z")]

    reranked = rerank.postprocess_nodes(nodes, query_str="q")

    place = ids(reranked).index(node.node_id)
    assert reranked[place].score == toy_score("q", scored)
    assert place == {"": 2, "b": 1, "k: v b": 0}[scored]
    assert type(reranked[place].node) is type(node)
    assert reranked[place].metadata["retrieval_score"] == 0.5


def test_the_default_model_is_the_environments(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_RERANK_MODEL", str(toy_folder))

    assert OnnxRerank().model == str(toy_folder)


def test_the_docstrings_example_is_true() -> None:
    tried = doctest.testmod(door)

    assert tried.attempted == 8
    assert tried.failed == 0


def test_the_door_reads_in_one_go() -> None:
    assert logging.getLogger(door.__name__).handlers == []
    assert len(Path(door.__file__).read_text().splitlines()) <= 200
