"""The LangChain door, in the real framework, on models whose scores are known.

The cases of the list of behaviours that rerank integrations get wrong, and the tests that hold them here:

     1  inputs untouched               test_the_given_documents_are_left_as_they_were
     2  floats, order, ties, top_n     test_scores_are_plain_floats_best_first_and_ties_keep_input_order,
                                       test_at_most_top_n_documents_are_returned, test_top_n_below_one_is_refused
     3  threshold                      test_the_threshold_comes_before_top_n_and_may_leave_nothing
     4  empty, tuples, duplicates      test_nothing_to_rank_gives_nothing_and_opens_no_model,
                                       test_any_sequence_will_do_and_duplicates_keep_their_own_places
     5  odd texts                      test_odd_texts_are_ranked_not_fatal
     6  odd queries                    test_an_empty_query_is_scored_and_a_long_one_leaves_room_for_the_document
     7  NaN, wrong counts              test_an_encoder_that_fails_gives_no_ranking
     8  batching changes nothing       test_batching_changes_neither_scores_nor_order
     9  async and threads              test_async_gives_what_sync_gives, test_the_loop_keeps_ticking_during_a_call,
                                       test_concurrent_calls_give_what_serial_ones_give,
                                       test_eight_threads_give_what_one_gives,
                                       test_a_cancelled_await_leaves_it_usable, test_two_event_loops_in_a_row,
                                       test_a_race_of_first_calls_opens_the_model_once
    10  copies, pickle, spawn          test_copies_and_pickles_work_like_the_original,
                                       test_a_spawned_process_ranks_alike
    11  unknown keywords, silence      test_unknown_options_are_refused,
                                       test_nothing_is_printed_logged_or_deprecated
    12  imports, the missing extra     test_the_door_imports_its_own_framework_only,
                                       test_a_missing_framework_names_the_pip_command
    13  what is scored                 test_the_text_that_is_scored_is_the_users_choice
    14  the first stage's score        test_the_first_stages_score_can_be_kept,
                                       test_a_kept_score_reaches_no_prompt
    15  documents kept as they are     test_documents_keep_class_id_and_fields_and_metadata_may_hold_anything
    16  stale scores, the key          test_a_stale_score_is_overwritten_and_the_key_is_a_choice
    17  DocumentCompressorPipeline     test_it_works_anywhere_in_a_pipeline,
                                       test_it_works_after_a_filter_that_leaves_nothing,
                                       test_reordering_for_long_contexts_comes_after
    18  callbacks                      test_a_call_is_one_run_under_the_callers (sync and async),
                                       test_without_callbacks_it_is_traced_where_it_is_called,
                                       test_a_failure_ends_the_run_with_its_error (sync and async)
    19  retriever and tool             test_the_compression_retriever, test_a_retrieval_has_one_rerank_run,
                                       test_the_retriever_tool_gives_text_and_documents, test_an_agent_uses_the_tool
    20  as_runnable                    test_as_a_runnable, test_a_runnables_call_is_one_run, test_a_chain;
                                       more in test_langchain_retriever.py
    21  dumps, CrossEncoderReranker    test_it_survives_dumps_and_loads,
                                       test_a_live_encoder_or_function_cannot_be_dumped,
                                       test_langchains_own_reranker_ranks_the_same
    22  the standard suite             TestStandardRetrieverSuite
"""

from __future__ import annotations

import asyncio
import copy
import doctest
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import (
    CrossEncoderReranker,
    DocumentCompressorPipeline,
    LLMChainFilter,
)
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.tracers.schemas import Run
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langchain_text_splitters import CharacterTextSplitter
from pydantic import ValidationError

from onnx_rerank_integrations import InputTypeError, ScoreError, TextCrossEncoder, TextCrossEncoderBase
from onnx_rerank_integrations.core.onnx_cross_encoder import OnnxCrossEncoder
from onnx_rerank_integrations.langchain import OnnxCrossEncoderModel, OnnxRerank
from tests.parity import fixtures
from tests.toy import make_toy, toy_score

WORDS = ["c", "z", "a", "k", "c", "b"]
BEST_FIRST = ["z", "k", "c", "c", "b", "a"]

QUESTION = "what do bees do in winter"
ANSWER = "In winter the bees stay in the hive and live on their honey."
PASSAGES = [
    "Copper turns green in the rain, iron turns brown.",
    ANSWER,
    "From the sea, from dry lakes, and from mines deep under the hills.",
    "What do they do? What do you do? Whatever they do in the evening, do it in the morning.",
    "Bees fly out in spring, when the first flowers open.",
    "In winter the baker starts at three, in summer at four.",
    "A hive is made of wood and stands in the orchard.",
    "The river freezes in winter and the ferry stays on land.",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def rerank(folder: Path) -> OnnxRerank:
    """The toy: the later a letter in the alphabet, the better."""
    return OnnxRerank(model=folder, activation="identity", top_n=None)


@pytest.fixture(scope="module")
def embedded() -> OnnxRerank:
    """The model that is in the package, for real text."""
    return OnnxRerank(model="lexical", top_n=3)


def documents_of(*texts: str) -> list[Document]:
    return [Document(text, id=str(place), metadata={"place": place}) for place, text in enumerate(texts)]


def texts_of(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def scores_of(documents: Sequence[Document]) -> list[float]:
    return [document.metadata["relevance_score"] for document in documents]


class HashedWords(Embeddings):
    """Embeds a text as the sum of fixed random vectors of its words: texts that share words are near."""

    def embed_query(self, text: str) -> list[float]:
        words = text.lower().replace(",", " ").replace(".", " ").split() or [""]
        seeds = [int.from_bytes(word.encode()[:8], "little") for word in words]
        total = np.sum([np.random.default_rng(seed).standard_normal(64) for seed in seeds], axis=0)
        return [float(value) for value in total]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class Wrapped(TextCrossEncoderBase):
    """An encoder of the user's own: another one's logits, after or through something else."""

    config: Mapping[str, Any] = {}

    def __init__(self, encoder: TextCrossEncoderBase, change: Callable[[Any], Any]) -> None:
        self.encoder = encoder
        self.change = change

    def logits(self, pairs: Any, **options: Any) -> Any:
        return self.change(self.encoder.logits(pairs, **options))

    def token_count(self, pairs: Any) -> int:
        return self.encoder.token_count(pairs)

    def truncated(self, pairs: Any) -> list[bool]:
        return self.encoder.truncated(pairs)


# 1 - 4: what goes in and what comes out


def test_the_given_documents_are_left_as_they_were(rerank: OnnxRerank) -> None:
    documents = documents_of(*WORDS)
    before = copy.deepcopy(documents)

    first = rerank.compress_documents(documents, "q")
    first_before = copy.deepcopy(first)
    second = rerank.compress_documents(documents, "e e e")
    second[0].metadata["mine"] = True

    assert documents == before
    assert first == first_before
    assert scores_of(first) != scores_of(second)


def test_scores_are_plain_floats_best_first_and_ties_keep_input_order(rerank: OnnxRerank) -> None:
    ranked = rerank.compress_documents(documents_of(*WORDS), "q")

    assert texts_of(ranked) == BEST_FIRST
    assert [document.metadata["place"] for document in ranked if document.page_content == "c"] == [0, 4]
    assert {type(score) for score in scores_of(ranked)} == {float}
    assert scores_of(ranked) == [toy_score("q", text) for text in BEST_FIRST]


def test_saturated_sigmoids_tie_in_score_but_not_in_order(folder: Path) -> None:
    ranked = OnnxRerank(model=folder, top_n=None).compress_documents(documents_of(*WORDS), "q")

    assert texts_of(ranked) == BEST_FIRST
    assert scores_of(ranked) == [1.0] * 6


@pytest.mark.parametrize(("top_n", "length"), [(1, 1), (3, 3), (6, 6), (99, 6), (None, 6)])
def test_at_most_top_n_documents_are_returned(top_n: int | None, length: int, rerank: OnnxRerank) -> None:
    ranked = rerank.model_copy(update={"top_n": top_n}).compress_documents(documents_of(*WORDS), "q")

    assert texts_of(ranked) == BEST_FIRST[:length]


@pytest.mark.parametrize("top_n", [0, -1])
def test_top_n_below_one_is_refused(top_n: int, folder: Path) -> None:
    rerank = OnnxRerank(model=folder)

    with pytest.raises(ValidationError, match="top_n"):
        OnnxRerank(model=folder, top_n=top_n)
    with pytest.raises(ValidationError, match="top_n"):
        rerank.top_n = top_n
    with pytest.raises(ValueError, match=f"top_n={top_n}"):
        rerank.rerank(["a"], "q", top_n=top_n)
    assert rerank.top_n == 3


def test_the_threshold_comes_before_top_n_and_may_leave_nothing(rerank: OnnxRerank) -> None:
    third_best = toy_score("q", "c")

    def ranked(**options: Any) -> list[str]:
        return texts_of(rerank.model_copy(update=options).compress_documents(documents_of(*WORDS), "q"))

    assert ranked(score_threshold=third_best) == BEST_FIRST[:4]
    assert ranked(score_threshold=third_best, top_n=3) == BEST_FIRST[:3]
    assert ranked(score_threshold=1e9) == []
    assert ranked(score_threshold=0.5, activation="sigmoid") == BEST_FIRST


async def test_nothing_to_rank_gives_nothing_and_opens_no_model(tmp_path: Path) -> None:
    nowhere = OnnxRerank(model=tmp_path / "nowhere", lazy_load=True)

    assert nowhere.compress_documents([], "q") == await nowhere.acompress_documents((), "q") == []
    assert nowhere.rerank([], "q") == nowhere.as_runnable().invoke({"query": "q", "documents": []}) == []


def test_any_sequence_will_do_and_duplicates_keep_their_own_places(rerank: OnnxRerank) -> None:
    same = Document("k", id="same")

    ranked = rerank.compress_documents((same, Document("a"), same, Document("k", id="same", metadata={"n": 1})), "q")

    assert texts_of(ranked) == ["k", "k", "k", "a"]
    assert [document.metadata.get("n") for document in ranked] == [None, None, 1, None]
    assert len({id(document) for document in ranked}) == 4


@pytest.mark.parametrize("wrong", ["a text", {"text": "a"}, None, 3])
def test_something_else_than_a_document_names_its_index(wrong: Any, rerank: OnnxRerank) -> None:
    with pytest.raises(InputTypeError, match=f"document 1 must be a Document, not {type(wrong).__name__}"):
        rerank.compress_documents([Document("a"), wrong], "q")
    with pytest.raises(InputTypeError, match="query must be a str, not NoneType"):
        rerank.compress_documents([Document("a")], None)  # type: ignore[arg-type]


# 5 - 8: odd texts, failing models, batches


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "🐤🐤", "\ud800", "a\x00b", "a " * 500_000, "x" * 1_000_000])
def test_odd_texts_are_ranked_not_fatal(text: str, embedded: OnnxRerank) -> None:
    documents = documents_of(PASSAGES[0], text, PASSAGES[1])

    ranked = embedded.compress_documents(documents, QUESTION)

    assert sorted(document.metadata["place"] for document in ranked) == [0, 1, 2]
    assert all(document.page_content == documents[document.metadata["place"]].page_content for document in ranked)
    assert all(0 <= score <= 1 for score in scores_of(ranked))


def test_an_empty_query_is_scored_and_a_long_one_leaves_room_for_the_document(rerank: OnnxRerank) -> None:
    empty = rerank.compress_documents(documents_of(*WORDS), "")
    long = rerank.compress_documents(documents_of(*WORDS), "e " * 1000)

    assert scores_of(empty) == [toy_score("", text) for text in BEST_FIRST]
    assert texts_of(long) == BEST_FIRST
    assert len(set(scores_of(long))) == len(set(WORDS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: np.where(logits == logits.max(), np.nan, logits), "index 1"),
        (lambda logits: np.where(logits == logits.max(), np.inf, logits), "index 1"),
        (lambda logits: logits[:-1], "5 scores for 6 documents"),
        (lambda logits: np.append(logits, 0.0), "7 scores for 6 documents"),
    ],
)
async def test_an_encoder_that_fails_gives_no_ranking(
    change: Callable[[Any], Any], message: str, rerank: OnnxRerank
) -> None:
    failing = rerank.model_copy(update={"model": Wrapped(rerank.encoder, change)})

    with pytest.raises(ScoreError, match=message):
        failing.compress_documents(documents_of(*WORDS), "q")
    with pytest.raises(ScoreError, match=message):
        await failing.acompress_documents(documents_of(*WORDS), "q")
    with pytest.raises(ScoreError, match=message):
        failing.rerank(WORDS, "q")


def test_batching_changes_neither_scores_nor_order() -> None:
    reference = fixtures.scores("bert")
    texts = sorted({text for pair in reference["pairs"] for text in pair})
    whole = OnnxRerank(model=fixtures.folder("bert"), max_length=reference["max_length"], top_n=None)
    alone = {text: whole.rerank([text], QUESTION)[0]["relevance_score"] for text in texts}

    for batch_size in (None, 1, 3, 64):
        ranked = whole.model_copy(update={"batch_size": batch_size}).compress_documents(documents_of(*texts), QUESTION)
        assert texts_of(ranked) == sorted(texts, key=alone.__getitem__, reverse=True)
        assert np.allclose(scores_of(ranked), [alone[text] for text in texts_of(ranked)], atol=1e-5)


# 9: async and threads


async def test_async_gives_what_sync_gives(embedded: OnnxRerank) -> None:
    documents = documents_of(*PASSAGES)

    assert await embedded.acompress_documents(documents, QUESTION) == embedded.compress_documents(documents, QUESTION)


async def test_the_loop_keeps_ticking_during_a_call(rerank: OnnxRerank) -> None:
    ticked = threading.Event()

    def after_the_ticks(logits: Any) -> Any:
        assert ticked.wait(120), "the loop stood still while the model ran"
        return logits

    async def tick() -> None:
        for _ in range(5):
            await asyncio.sleep(0.01)
        ticked.set()

    slow = rerank.model_copy(update={"model": Wrapped(rerank.encoder, after_the_ticks)})
    ranked, _ = await asyncio.gather(slow.acompress_documents(documents_of(*WORDS), "q"), tick())

    assert texts_of(ranked) == BEST_FIRST


@pytest.mark.parametrize("max_concurrency", [1, 4])
async def test_concurrent_calls_give_what_serial_ones_give(max_concurrency: int, embedded: OnnxRerank) -> None:
    several = embedded.model_copy(update={"max_concurrency": max_concurrency})
    calls = [(documents_of(*PASSAGES[place:], *PASSAGES[:place]), f"{QUESTION} {place}") for place in range(8)]
    serial = [several.compress_documents(*call) for call in calls]

    assert await asyncio.gather(*(several.acompress_documents(*call) for call in calls)) == serial


def test_eight_threads_give_what_one_gives(embedded: OnnxRerank) -> None:
    calls = [(documents_of(*PASSAGES[place % 8 :]), f"{QUESTION} {place}") for place in range(40)]
    serial = [embedded.compress_documents(*call) for call in calls]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda call: embedded.compress_documents(*call), calls)) == serial


async def test_a_cancelled_await_leaves_it_usable(rerank: OnnxRerank) -> None:
    gate, begun = threading.Event(), threading.Event()

    def wait(logits: Any) -> Any:
        begun.set()
        assert gate.wait(120)
        return logits

    slow = rerank.model_copy(update={"model": Wrapped(rerank.encoder, wait)})
    call = asyncio.ensure_future(slow.acompress_documents(documents_of(*WORDS), "q"))
    assert await asyncio.to_thread(begun.wait, 120)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()

    assert texts_of(await slow.acompress_documents(documents_of(*WORDS), "q")) == BEST_FIRST


def test_two_event_loops_in_a_row(embedded: OnnxRerank) -> None:
    first, second = (asyncio.run(embedded.acompress_documents(documents_of(*PASSAGES), QUESTION)) for _ in range(2))

    assert first == second == embedded.compress_documents(documents_of(*PASSAGES), QUESTION)


def test_a_race_of_first_calls_opens_the_model_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real = OnnxCrossEncoder.__init__

    def counted(self: OnnxCrossEncoder, *args: Any, **options: Any) -> None:
        opened.append(self)
        real(self, *args, **options)

    monkeypatch.setattr(OnnxCrossEncoder, "__init__", counted)
    lazy = OnnxRerank(model=folder, lazy_load=True, max_concurrency=4)
    copied = lazy.model_copy(update={"top_n": 1})
    assert opened == []

    async def calls() -> list[list[Document]]:
        several = [one.acompress_documents(documents_of(*WORDS), "q") for one in [lazy, copied] * 4]
        threads = [asyncio.to_thread(one.compress_documents, documents_of(*WORDS), "q") for one in [lazy, copied] * 4]
        return await asyncio.gather(*several, *threads)

    assert [texts_of(ranked) for ranked in asyncio.run(calls())] == [BEST_FIRST[:3], BEST_FIRST[:1]] * 8
    assert len(opened) == 1


# 10 - 12: copies, processes, imports


def test_copies_and_pickles_work_like_the_original(rerank: OnnxRerank, tmp_path: Path) -> None:
    documents = documents_of(*WORDS)
    expected = rerank.compress_documents(documents, "q")

    for again in (pickle.loads(pickle.dumps(rerank)), copy.deepcopy(rerank), copy.copy(rerank), rerank.model_copy()):
        assert again == rerank
        assert again.compress_documents(documents, "q") == expected
    best = rerank.model_copy(update={"top_n": 1})
    assert best != rerank
    assert best.compress_documents(documents, "q") == expected[:1]
    twice = rerank.model_copy(update={"model": make_toy(tmp_path, head="two")})
    assert scores_of(twice.compress_documents(documents, "q")) == [2 * score for score in scores_of(expected)]
    assert rerank.compress_documents(documents, "q") == expected


def _ranked_texts(rerank: OnnxRerank) -> list[str]:
    return texts_of(rerank.compress_documents(documents_of(*WORDS), "q"))


def test_a_spawned_process_ranks_alike(rerank: OnnxRerank) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_ranked_texts, [rerank]) == BEST_FIRST


def test_unknown_options_are_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match="topn"):
        OnnxRerank(model=folder, topn=3)
    with pytest.raises(ValidationError, match="top_n"):
        OnnxCrossEncoderModel(model=folder, top_n=3)
    with pytest.raises(TypeError, match="topn"):
        OnnxRerank(model=folder).rerank(["a"], "q", topn=3)  # type: ignore[call-arg]


QUIET = """
import asyncio, logging, sys
from langchain_core.documents import Document
before = (logging.root.level, list(logging.root.handlers))
from onnx_rerank_integrations.langchain import OnnxCrossEncoderModel, OnnxRerank
rerank = OnnxRerank(model=sys.argv[1])
documents = [Document("a"), Document("z")]
rerank.compress_documents(documents, "q")
asyncio.run(rerank.acompress_documents(documents, "q"))
rerank.as_runnable().batch([{"query": "q", "documents": documents}])
OnnxCrossEncoderModel(model=sys.argv[1]).score([("q", "a")])
rerank.model_dump_json(), repr(rerank), rerank.model_copy()
assert before == (logging.root.level, list(logging.root.handlers))
"""


def test_nothing_is_printed_logged_or_deprecated(folder: Path) -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", QUIET, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_door_imports_its_own_framework_only() -> None:
    code = "import sys, onnx_rerank_integrations{}; print(*{{m.split('.')[0] for m in sys.modules}})"

    def imported(module: str) -> set[str]:
        command = [sys.executable, "-c", code.format(module)]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    assert not imported("") & {"langchain_core", "llama_index", "pydantic"}
    assert "langchain_core" in imported(".langchain")
    others = {"llama_index", "langchain", "langchain_classic", "langchain_community", "torch", "transformers"}
    assert not imported(".langchain") & others


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import onnx_rerank_integrations
try:
    import onnx_rerank_integrations.langchain
except onnx_rerank_integrations.MissingExtraError as error:
    assert isinstance(error, ImportError) and isinstance(error.__cause__, ModuleNotFoundError)
    print(error)
"""


def test_a_missing_framework_names_the_pip_command() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)

    assert 'pip install "onnx-rerank-integrations[langchain]"' in done.stdout


# 13 - 16: texts and metadata


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("content", ["a", "z"]),
        (["title"], ["t", "b"]),
        (["title", "content", "missing"], ["t a", "b z"]),
        (lambda document: document.metadata["title"] + " y", ["t y", "b y"]),
    ],
)
def test_the_text_that_is_scored_is_the_users_choice(text: Any, scored: list[str], rerank: OnnxRerank) -> None:
    documents = [Document("a", metadata={"title": "t"}), Document("z", metadata={"title": "b"})]

    ranked = rerank.model_copy(update={"text": text}).compress_documents(documents, "q")

    assert {document.page_content: document.metadata["relevance_score"] for document in ranked} == {
        "a": toy_score("q", scored[0]),
        "z": toy_score("q", scored[1]),
    }


def test_a_text_function_that_gives_no_text_names_the_document(rerank: OnnxRerank) -> None:
    with pytest.raises(InputTypeError, match="the text function gave NoneType for document 1"):
        rerank.model_copy(update={"text": lambda document: document.metadata.get("title")}).compress_documents(
            [Document("a", metadata={"title": "t"}), Document("b")], "q"
        )


def test_the_first_stages_score_can_be_kept(rerank: OnnxRerank) -> None:
    documents = [Document("a", metadata={"score": 0.9}), Document("z", metadata={"score": 0.1}), Document("k")]
    keeping = rerank.model_copy(update={"keep_retrieval_score": True})

    ranked = keeping.compress_documents(documents, "q")
    again = keeping.model_copy(update={"score_key": "score"}).compress_documents(ranked, "q")
    thrice = keeping.compress_documents(again, "q")

    assert [document.metadata.get("retrieval_score") for document in ranked] == [0.1, None, 0.9]
    assert [document.metadata["retrieval_score"] for document in thrice if document.page_content != "k"] == [0.1, 0.9]
    assert all("retrieval_score" not in doc.metadata for doc in rerank.compress_documents(documents, "q"))


def test_a_kept_score_reaches_no_prompt(rerank: OnnxRerank) -> None:
    documents = [Document("a", metadata={"score": 0.875})]
    keeping = rerank.model_copy(update={"keep_retrieval_score": True})
    prompt = ChatPromptTemplate.from_template("{context}")
    tool = create_retriever_tool(compression_over(lambda query: documents, keeping), "search", "Searches.")

    shown = tool.invoke({"query": "q"})
    [best] = keeping.compress_documents(documents, "q")

    assert best.metadata["retrieval_score"] == 0.875
    assert shown == best.page_content == "a"
    assert "0.875" not in prompt.format(context="\n".join(texts_of([best])))


class Chapter(Document):
    book: str = ""


def test_documents_keep_class_id_and_fields_and_metadata_may_hold_anything(rerank: OnnxRerank) -> None:
    lock = threading.Lock()  # a deep copy of it fails, as one of a database client would
    chapter = Chapter("a", id="7", book="the book", metadata={"lock": lock, 3: "three", "nested": {"a": [1]}})
    collector = RunCollectorCallbackHandler()

    [best] = rerank.compress_documents([chapter], "q", callbacks=[collector])

    assert type(best) is Chapter
    assert (best.id, best.book, best.page_content, best.type) == ("7", "the book", "a", "Document")
    assert best.metadata == {**chapter.metadata, "relevance_score": toy_score("q", "a")}
    assert best.metadata["lock"] is lock
    assert best.metadata is not chapter.metadata
    assert len(collector.traced_runs) == 1


def test_a_stale_score_is_overwritten_and_the_key_is_a_choice(rerank: OnnxRerank) -> None:
    stale = Document("a", metadata={"relevance_score": 99.0, "mine": 1.0})

    [fresh] = rerank.compress_documents([stale], "q")
    [mine] = rerank.model_copy(update={"score_key": "mine"}).compress_documents([stale], "q")

    assert fresh.metadata == {"relevance_score": toy_score("q", "a"), "mine": 1.0}
    assert mine.metadata == {"relevance_score": 99.0, "mine": toy_score("q", "a")}


# 17: pipelines


class OnlyLong(BaseDocumentTransformer):
    """Keeps documents of so many characters."""

    def __init__(self, characters: int) -> None:
        self.characters = characters

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        return [document for document in documents if len(document.page_content) >= self.characters]

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        return self.transform_documents(documents)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_it_works_anywhere_in_a_pipeline(place: int, rerank: OnnxRerank) -> None:
    transformers: list[Any] = [OnlyLong(0), OnlyLong(1)]
    transformers.insert(place, rerank)
    pipeline = DocumentCompressorPipeline(transformers=transformers)
    collector = RunCollectorCallbackHandler()

    ranked = pipeline.compress_documents(documents_of(*WORDS), "q", callbacks=[collector])

    assert texts_of(ranked) == BEST_FIRST
    assert [run.name for run in collector.traced_runs] == ["rerank"]
    assert await pipeline.acompress_documents(documents_of(*WORDS), "q") == ranked


async def test_it_works_after_a_filter_that_leaves_nothing(rerank: OnnxRerank) -> None:
    pipeline = DocumentCompressorPipeline(transformers=[OnlyLong(100), rerank, OnlyLong(0)])

    assert list(pipeline.compress_documents(documents_of(*WORDS), "q")) == []
    assert list(await pipeline.acompress_documents(documents_of(*WORDS), "q")) == []


def test_it_ranks_the_passages_that_langchains_splitter_makes(rerank: OnnxRerank) -> None:
    splitter = CharacterTextSplitter(separator=" ", chunk_size=1, chunk_overlap=0)
    documents = [Document("b e a", id="1", metadata={"page": 1}), Document("d c", id="2", metadata={"page": 2})]

    ranked = DocumentCompressorPipeline(transformers=[splitter, rerank]).compress_documents(documents, "q")

    assert texts_of(ranked) == ["e", "d", "c", "b", "a"]
    assert [document.metadata["page"] for document in ranked] == [1, 2, 2, 1, 1]


def test_it_ranks_what_langchains_llm_filter_leaves(rerank: OnnxRerank) -> None:
    says = FakeListChatModel(responses=["YES", "NO", "YES"])
    documents = documents_of("a", "b", "c")

    ranked = DocumentCompressorPipeline(transformers=[LLMChainFilter.from_llm(says), rerank]).compress_documents(
        documents, "q"
    )

    assert texts_of(ranked) == ["c", "a"]


class BestAtBothEnds(BaseDocumentTransformer):
    """The best documents at the beginning and at the end, where a language model reads best."""

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        return [*documents[::2], *documents[1::2][::-1]]

    async def atransform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        return self.transform_documents(documents)


async def test_reordering_for_long_contexts_comes_after(rerank: OnnxRerank) -> None:
    pipeline = DocumentCompressorPipeline(transformers=[rerank, BestAtBothEnds()])
    documents = documents_of("b", "e", "a", "d", "c")

    assert texts_of(pipeline.compress_documents(documents, "q")) == ["e", "c", "a", "b", "d"]
    assert texts_of(await pipeline.acompress_documents(documents, "q")) == ["e", "c", "a", "b", "d"]


# 18: callbacks and traces


def rerank_runs(runs: Sequence[Run]) -> list[Run]:
    found: list[Run] = []
    for run in runs:
        found += [run] if run.name == "rerank" else []
        found += rerank_runs(run.child_runs)
    return found


FACTS = {"documents": 6, "top_n": 2}


@pytest.mark.parametrize("kind", ["list", "manager", "async manager", "child manager", "async child manager"])
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_call_is_one_run_under_the_callers(how: str, kind: str, rerank: OnnxRerank, folder: Path) -> None:
    collector = RunCollectorCallbackHandler()
    manager = (AsyncCallbackManager if "async" in kind else CallbackManager).configure([collector])
    parent = None
    if "child" in kind:
        starting = manager.on_chain_start(None, {}, name="parent")
        parent = await starting if "async" in kind else starting
    callbacks = parent.get_child() if parent else [collector] if kind == "list" else manager
    best = rerank.model_copy(update={"top_n": 2})

    if how == "sync":
        ranked = best.compress_documents(documents_of(*WORDS), "q", callbacks=callbacks)
    else:
        ranked = await best.acompress_documents(documents_of(*WORDS), "q", callbacks=callbacks)
    if parent:
        ending = parent.on_chain_end({})
        await ending if "async" in kind else None

    [root] = collector.traced_runs
    [run] = rerank_runs([root])
    assert root.name == ("parent" if parent else "rerank")
    assert run.parent_run_id == (parent.run_id if parent else None)
    assert run.child_runs == []
    assert run.error is None
    assert run.end_time is not None
    assert run.metadata.items() >= {**FACTS, "model": str(folder)}.items()
    assert run.inputs["query"] == "q"
    assert run.outputs == {"output": ranked}


async def test_without_callbacks_it_is_traced_where_it_is_called(rerank: OnnxRerank) -> None:
    collector = RunCollectorCallbackHandler()
    step = RunnableLambda(
        lambda query: rerank.compress_documents(documents_of(*WORDS), query),
        lambda query: rerank.acompress_documents(documents_of(*WORDS), query),
        name="step",
    )

    step.invoke("q", {"callbacks": [collector]})
    await step.ainvoke("q", {"callbacks": [collector]})

    for root in collector.traced_runs:
        assert (root.name, [run.name for run in root.child_runs]) == ("step", ["rerank"])
    assert len(collector.traced_runs) == 2
    assert rerank.compress_documents(documents_of(*WORDS), "q", callbacks=None)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_failure_ends_the_run_with_its_error(how: str, rerank: OnnxRerank) -> None:
    failing = rerank.model_copy(update={"model": Wrapped(rerank.encoder, lambda logits: logits * np.nan)})
    collector = RunCollectorCallbackHandler()

    if how == "sync":
        with pytest.raises(ScoreError):
            failing.compress_documents(documents_of(*WORDS), "q", callbacks=[collector])
    else:
        with pytest.raises(ScoreError):
            await failing.acompress_documents(documents_of(*WORDS), "q", callbacks=[collector])

    [run] = rerank_runs(collector.traced_runs)
    assert "ScoreError" in str(run.error)
    assert run.end_time is not None


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_the_run_tells_how_many_documents_were_cut(how: str, folder: Path) -> None:
    collector = RunCollectorCallbackHandler()
    rerank = OnnxRerank(model=folder, max_length=8, warn_truncated=False)

    for texts in (("a " * 20, "b", "c " * 30), ("a", "b")):
        call = {"query": "q", "documents": documents_of(*texts)}
        if how == "sync":
            rerank.as_runnable().invoke(call, {"callbacks": [collector]})
        else:
            await rerank.as_runnable().ainvoke(call, {"callbacks": [collector]})

    assert [run.metadata["truncated"] for run in rerank_runs(collector.traced_runs)] == [2, 0]


def test_a_call_with_nothing_to_rank_is_a_run_too(rerank: OnnxRerank) -> None:
    collector = RunCollectorCallbackHandler()

    rerank.compress_documents([], "q", callbacks=[collector])

    [run] = rerank_runs(collector.traced_runs)
    assert run.metadata["documents"] == 0
    assert run.outputs == {"output": []}


# 19: retrievers, tools, agents


class Found(BaseRetriever):
    find: Callable[[str], list[Document]]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.find(query)


def compression_over(find: Callable[[str], list[Document]], rerank: OnnxRerank) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(base_compressor=rerank, base_retriever=Found(find=find))


@pytest.fixture(scope="module")
def passages() -> Iterator[BaseRetriever]:
    """Passages in a vector store: Qdrant in its local mode."""
    pytest.importorskip("langchain_qdrant", reason="needs the extra [notebooks]")
    from langchain_qdrant import QdrantVectorStore

    metadatas = [{"source": f"page {place}"} for place in range(len(PASSAGES))]
    ids = [str(uuid4()) for _ in PASSAGES]
    store = QdrantVectorStore.from_texts(
        PASSAGES, HashedWords(), metadatas=metadatas, ids=ids, location=":memory:", collection_name="passages"
    )
    yield store.as_retriever(search_kwargs={"k": 6})
    store.client.close()


@pytest.fixture(scope="module")
def retriever(passages: BaseRetriever, embedded: OnnxRerank) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(base_compressor=embedded, base_retriever=passages)


async def test_the_compression_retriever(
    retriever: ContextualCompressionRetriever, passages: BaseRetriever, embedded: OnnxRerank
) -> None:
    found = passages.invoke(QUESTION)
    scores = embedded.encoder.rerank(QUESTION, texts_of(found), activation="sigmoid")
    best_first = sorted(zip(scores, texts_of(found), strict=True), reverse=True)[:3]

    ranked = retriever.invoke(QUESTION)

    assert texts_of(ranked) == [text for _, text in best_first]
    assert texts_of(ranked)[0] == ANSWER != found[0].page_content
    assert scores_of(ranked) == pytest.approx([score for score, _ in best_first])
    assert all(document.metadata["source"].startswith("page ") for document in ranked)
    assert await retriever.ainvoke(QUESTION) == ranked
    assert retriever.batch([QUESTION, QUESTION]) == [ranked, ranked]
    assert await retriever.abatch([QUESTION, QUESTION]) == [ranked, ranked]
    assert list(retriever.stream(QUESTION)) == [ranked]
    assert [chunk async for chunk in retriever.astream(QUESTION)] == [ranked]


async def test_a_retrieval_has_one_rerank_run(retriever: ContextualCompressionRetriever) -> None:
    collector = RunCollectorCallbackHandler()

    retriever.invoke(QUESTION, {"callbacks": [collector]})
    await retriever.ainvoke(QUESTION, {"callbacks": [collector]})

    for root in collector.traced_runs:
        [run] = rerank_runs([root])
        assert run.parent_run_id == root.id
        assert run.metadata.items() >= {"documents": 6, "top_n": 3}.items()
    assert len(collector.traced_runs) == 2


async def test_the_retriever_tool_gives_text_and_documents(retriever: ContextualCompressionRetriever) -> None:
    tool = create_retriever_tool(retriever, "search", "Searches.", response_format="content_and_artifact")
    call = {"type": "tool_call", "id": "1", "name": "search", "args": {"query": QUESTION}}
    ranked = retriever.invoke(QUESTION)

    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert isinstance(message, ToolMessage)
        assert message.artifact == ranked
        assert message.content == "\n\n".join(texts_of(ranked))


class ScriptedChat(GenericFakeChatModel):
    """A chat model that says what the script holds, and takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> ScriptedChat:
        return self


async def test_an_agent_uses_the_tool(retriever: ContextualCompressionRetriever) -> None:
    from langchain.agents import create_agent

    tool = create_retriever_tool(retriever, "search", "Searches.", response_format="content_and_artifact")
    script = [
        AIMessage("", tool_calls=[{"name": "search", "args": {"query": QUESTION}, "id": "1"}]),
        AIMessage("They stay in the hive."),
    ]
    agent = create_agent(ScriptedChat(messages=iter(script * 2)), [tool])
    question = {"messages": [("user", QUESTION)]}
    collector = RunCollectorCallbackHandler()

    sync = agent.invoke(question, {"callbacks": [collector]})
    asynchronous = await agent.ainvoke(question, {"callbacks": [collector]})

    for answer in (sync, asynchronous):
        [message] = [message for message in answer["messages"] if isinstance(message, ToolMessage)]
        assert message.artifact == retriever.invoke(QUESTION)
        assert message.content.startswith(ANSWER)
        assert answer["messages"][-1].content == "They stay in the hive."
    assert [len(rerank_runs([root])) for root in collector.traced_runs] == [1, 1]


# 20: as a runnable


async def test_as_a_runnable(rerank: OnnxRerank) -> None:
    runnable = rerank.as_runnable()
    call: Any = {"query": "q", "documents": documents_of(*WORDS), "further": "keys are left alone"}
    ranked = rerank.compress_documents(documents_of(*WORDS), "q")

    assert runnable.invoke(call) == await runnable.ainvoke(call) == ranked
    assert runnable.invoke({**call, "top_n": 1}) == ranked[:1]
    assert runnable.batch([call, {**call, "top_n": 2}]) == [ranked, ranked[:2]]
    assert await runnable.abatch([call, {**call, "top_n": None}]) == [ranked, ranked]
    assert list(runnable.stream(call)) == [ranked]
    assert set(runnable.get_input_jsonschema()["$defs"]) >= {"Document"}


@pytest.mark.parametrize("inputs", ["q", {"query": "q"}, {"documents": []}, None])
async def test_a_runnable_says_what_it_takes(inputs: Any, rerank: OnnxRerank) -> None:
    with pytest.raises(InputTypeError, match=r'takes \{"query": str, "documents": '):
        rerank.as_runnable().invoke(inputs)
    with pytest.raises(InputTypeError, match=r'takes \{"query": str, "documents": '):
        await rerank.as_runnable().ainvoke(inputs)


async def test_a_runnables_call_is_one_run(rerank: OnnxRerank) -> None:
    collector = RunCollectorCallbackHandler()
    call: Any = {"query": "q", "documents": documents_of(*WORDS), "top_n": 2}

    rerank.as_runnable().invoke(call, {"callbacks": [collector], "metadata": {"mine": 1}})
    await rerank.as_runnable().abatch([call, call], {"callbacks": [collector]})

    assert [run.name for run in collector.traced_runs] == ["rerank"] * 3
    assert all(run.child_runs == [] and run.metadata.items() >= FACTS.items() for run in collector.traced_runs)
    assert collector.traced_runs[0].metadata["mine"] == 1


async def test_a_chain(passages: BaseRetriever, embedded: OnnxRerank) -> None:
    chain = (
        {"query": RunnablePassthrough(), "documents": passages}
        | embedded.as_runnable()
        | (lambda documents: {"context": "\n".join(texts_of(documents))})
        | ChatPromptTemplate.from_template("{context}")
        | RunnableLambda(lambda prompt: prompt.to_messages()[0].content)
        | StrOutputParser()
    )
    expected = "\n".join(texts_of(embedded.compress_documents(passages.invoke(QUESTION), QUESTION)))
    collector = RunCollectorCallbackHandler()

    assert chain.invoke(QUESTION, {"callbacks": [collector]}) == expected
    assert await chain.ainvoke(QUESTION) == expected
    assert "".join(chain.stream(QUESTION)) == expected
    assert chain.batch([QUESTION] * 2) == [expected] * 2
    assert len(rerank_runs(collector.traced_runs)) == 1


# rerank(), as Cohere's has it


def test_rerank_gives_indices_and_scores_of_texts_documents_and_dicts(rerank: OnnxRerank) -> None:
    documents = ["a", Document("z"), {"text": "k", "title": "t"}]
    by_hand = [
        {"index": 1, "relevance_score": toy_score("q", "z")},
        {"index": 2, "relevance_score": toy_score("q", "k")},
        {"index": 0, "relevance_score": toy_score("q", "a")},
    ]

    results = rerank.rerank(documents, "q")

    assert results == by_hand
    assert json.loads(json.dumps(results)) == by_hand
    assert rerank.rerank(documents, "q", top_n=2) == by_hand[:2]
    best = rerank.model_copy(update={"top_n": 1})
    assert best.rerank(documents, "q") == by_hand[:1]
    assert best.rerank(documents, "q", top_n=None) == by_hand


def test_rerank_reads_the_chosen_fields_of_dicts(rerank: OnnxRerank) -> None:
    documents = [{"title": "t"}, {"title": "b", "text": "z"}]

    titles = rerank.model_copy(update={"text": ["title"]}).rerank(documents, "q")

    assert titles == [
        {"index": 0, "relevance_score": toy_score("q", "t")},
        {"index": 1, "relevance_score": toy_score("q", "b")},
    ]
    with pytest.raises(InputTypeError, match='document 0 is a dict without a str at "text"'):
        rerank.rerank(documents, "q")
    with pytest.raises(InputTypeError, match="document 1 must be a str, a Document or a dict, not int"):
        rerank.rerank(["a", 3], "q")  # type: ignore[list-item]


@pytest.mark.parametrize("one", ["a text", {"text": "a"}, Document("a")])
def test_one_document_alone_is_an_error(one: Any, rerank: OnnxRerank) -> None:
    with pytest.raises(InputTypeError, match=f"documents must be several, not one {type(one).__name__}"):
        rerank.rerank(one, "q")
    with pytest.raises(InputTypeError, match=r"document 0 must be a Document|documents must be a list of Document"):
        rerank.compress_documents(one, "q")


@pytest.mark.parametrize("wrong", [None, 3, object()])
def test_what_is_no_list_of_documents_is_told(wrong: Any, rerank: OnnxRerank) -> None:
    message = f"documents must be a list of Document, not {type(wrong).__name__}"
    with pytest.raises(InputTypeError, match=message):
        rerank.compress_documents(wrong, "q")
    with pytest.raises(InputTypeError, match=message):
        rerank.as_runnable().invoke({"query": "q", "documents": wrong})
    with pytest.raises(InputTypeError, match="documents must be a list of str, Document or dict, not"):
        rerank.rerank(wrong, "q")


# 21: dumps, loads, LangChain's own reranker


def test_dumps_writes_the_options_that_differ_from_their_defaults(folder: Path) -> None:
    assert json.loads(dumps(OnnxRerank(model=folder)))["kwargs"] == {"model": str(folder)}
    changed = OnnxRerank(model=folder, text=["content"], top_n=None, activation="sigmoid")
    assert json.loads(dumps(changed))["kwargs"] == {"model": str(folder), "text": ["content"], "top_n": None}


def test_it_survives_dumps_and_loads(folder: Path) -> None:
    for rerank in (
        OnnxRerank(model=folder),
        OnnxRerank(
            model=folder,
            top_n=None,
            score_threshold=0.0,
            activation="identity",
            text=["title", "content"],
            keep_retrieval_score=True,
            score_key="mine",
            max_length=32,
            label=0,
            providers=[("CPUExecutionProvider", {})],
            cache_dir=folder,
        ),
    ):
        text = dumps(rerank)
        again = loads(text, allowed_objects=[OnnxRerank], valid_namespaces=["onnx_rerank_integrations"])

        assert again == rerank
        assert again.compress_documents(documents_of(*WORDS), "q") == rerank.compress_documents(
            documents_of(*WORDS), "q"
        )


def test_a_live_encoder_or_function_cannot_be_dumped(folder: Path) -> None:
    with pytest.raises(ValueError, match="model is a live encoder, which can't be serialized"):
        dumps(OnnxRerank(model=TextCrossEncoder(folder)))
    with pytest.raises(ValueError, match="text is a function, which can't be serialized"):
        dumps(OnnxRerank(model=folder, text=lambda document: "a"))


def test_langchains_own_reranker_ranks_the_same(folder: Path) -> None:
    model = OnnxCrossEncoderModel(model=folder)
    theirs = CrossEncoderReranker(model=model, top_n=4)
    ours = OnnxRerank(model=folder, top_n=4)

    assert texts_of(theirs.compress_documents(documents_of(*WORDS), "q")) == BEST_FIRST[:4]
    assert texts_of(ours.compress_documents(documents_of(*WORDS), "q")) == BEST_FIRST[:4]
    scores = model.score([("q", "a"), ("q", "z")])
    assert scores == [toy_score("q", "a"), toy_score("q", "z")]
    assert {type(score) for score in scores} == {float}
    assert model.score([]) == theirs.compress_documents([], "q") == []
    assert pickle.loads(pickle.dumps(model)) == model


# 22: the standard suite, and the docstrings


class TestStandardRetrieverSuite(RetrieversIntegrationTests):
    """langchain_tests' own tests of a retriever."""

    @property
    def retriever_constructor(self) -> Any:
        def construct(k: int = 3) -> ContextualCompressionRetriever:
            store = InMemoryVectorStore.from_texts(PASSAGES, HashedWords())
            return ContextualCompressionRetriever(
                base_compressor=OnnxRerank(model="lexical", top_n=k),
                base_retriever=store.as_retriever(search_kwargs={"k": 6}),
            )

        return construct

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


@pytest.mark.parametrize("documented", [OnnxRerank, OnnxCrossEncoderModel])
def test_the_docstrings_examples_are_true(documented: type) -> None:
    [example] = [test for test in doctest.DocTestFinder(recurse=False).find(documented) if test.examples]

    result = doctest.DocTestRunner().run(example)

    assert result.attempted >= 3
    assert result.failed == 0
