"""The Haystack door, in the real framework, on models whose scores are known."""

from __future__ import annotations

import asyncio
import copy
import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from onnx_rerank_integrations import InputTypeError, InputValueError, ScoreError, TextCrossEncoder
from tests.toy import make_toy, toy_score

pytest.importorskip("haystack", reason="needs the extra haystack")

import haystack
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from onnx_rerank_integrations.door import RerankOptions
from onnx_rerank_integrations.haystack import OnnxRerank

WORDS = ["c", "z", "a", "k", "c", "b"]
BEST_FIRST = ["z", "k", "c", "c", "b", "a"]
QUESTION = "what do bees do in winter"
ANSWER = "In winter the bees stay in the hive and live on their honey."
PASSAGES = ["Bees fly out in spring.", "The baker starts at four in winter.", ANSWER, "What do they do in winter?"]


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setattr("haystack.telemetry._telemetry.telemetry", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def ranker(folder: Path) -> OnnxRerank:
    """The toy: the later a letter in the alphabet, the better."""
    return OnnxRerank(model=folder, activation="identity", top_k=None)


def documents_of(*texts: str) -> list[Document]:
    return [
        Document(id=str(place), content=text, meta={"place": place}, score=0.5, embedding=[0.1])
        for place, text in enumerate(texts)
    ]


def ranked(ranker: OnnxRerank, documents: list[Document], **options: Any) -> list[Document]:
    return ranker.run(query="q", documents=documents, **options)["documents"]  # type: ignore[no-any-return]


def texts_of(documents: list[Document]) -> list[str | None]:
    return [document.content for document in documents]


def test_copies_come_back_best_first_with_plain_scores_and_all_they_had(ranker: OnnxRerank) -> None:
    documents = documents_of(*WORDS)
    before = copy.deepcopy(documents)

    best_first = ranked(ranker, documents)

    assert documents == before
    assert texts_of(best_first) == BEST_FIRST
    assert [document.score for document in best_first] == [toy_score("q", text) for text in BEST_FIRST]
    assert {type(document.score) for document in best_first} == {float}
    assert [document.id for document in best_first if document.content == "c"] == ["0", "4"]
    for document in best_first:
        given = documents[document.meta["place"]]
        assert (document.id, document.meta, document.embedding) == (given.id, given.meta, given.embedding)
        assert document.meta is not given.meta


@pytest.mark.parametrize(("top_k", "length"), [(1, 1), (3, 3), (99, 6), (None, 3)])
def test_at_most_top_k_are_returned(top_k: int | None, length: int, folder: Path) -> None:
    three = OnnxRerank(model=folder)

    assert texts_of(ranked(three, documents_of(*WORDS), top_k=top_k)) == BEST_FIRST[:length]


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(top_k: int, ranker: OnnxRerank) -> None:
    with pytest.raises(InputValueError, match=f"top_k={top_k}"):
        OnnxRerank(model="lexical", top_k=top_k)
    with pytest.raises(InputValueError, match=f"top_k={top_k}"):
        ranked(ranker, documents_of("a"), top_k=top_k)


def test_the_threshold_comes_before_top_k_and_may_leave_nothing(folder: Path) -> None:
    third_best = toy_score("q", "c")
    strict = OnnxRerank(model=folder, activation="identity", score_threshold=third_best, top_k=None)

    assert texts_of(ranked(strict, documents_of(*WORDS))) == BEST_FIRST[:4]
    assert texts_of(ranked(strict, documents_of(*WORDS), top_k=2)) == BEST_FIRST[:2]
    assert ranked(strict, documents_of(*WORDS), score_threshold=1e9) == []


def test_nothing_to_rank_opens_no_model_and_warm_up_does(tmp_path: Path) -> None:
    nowhere = OnnxRerank(model=tmp_path / "nowhere")

    assert ranked(nowhere, []) == asyncio.run(nowhere.run_async(query="q", documents=[]))["documents"] == []
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nowhere.warm_up()
    make_toy(tmp_path / "nowhere")
    nowhere.warm_up()
    assert len(ranked(nowhere, documents_of(*WORDS))) == 3


def test_a_ready_encoder_may_be_shared(folder: Path) -> None:
    encoder = TextCrossEncoder(folder)
    shared = OnnxRerank(model=encoder)

    shared.warm_up()

    assert shared.options.encoder is encoder
    assert texts_of(ranked(shared, documents_of(*WORDS))) == BEST_FIRST[:3]


@pytest.mark.parametrize("text", ["", "  ", "🐤", "\ud800", "a\x00b", "a " * 100_000, None])
def test_odd_and_missing_texts_are_ranked_not_fatal(text: str | None) -> None:
    documents = [Document(id="0", content="Soup."), Document(id="1", content=text), Document(id="2", content=ANSWER)]

    best_first = OnnxRerank(model="lexical", top_k=None).run(query=QUESTION, documents=documents)["documents"]

    assert sorted(document.id for document in best_first) == ["0", "1", "2"]
    assert best_first[0].id == "2"


def test_what_cannot_be_ranked_is_named(ranker: OnnxRerank) -> None:
    with pytest.raises(InputTypeError, match="document 1 must be a Document, not str"):
        ranked(ranker, [Document(content="a"), "b"])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="documents must be a list of Document, not NoneType"):
        ranked(ranker, None)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="query must be a str, not NoneType"):
        ranker.run(query=None, documents=[])
    with pytest.raises(ScoreError, match="index 1"):
        ranked(ranker, documents_of("a", "nan"))


async def test_async_gives_what_sync_gives(ranker: OnnxRerank) -> None:
    documents = documents_of(*WORDS)
    expected = {"documents": ranked(ranker, documents)}

    assert await ranker.run_async(query="q", documents=documents) == expected
    calls = (ranker.run_async(query="q", documents=documents) for _ in range(8))
    assert await asyncio.gather(*calls) == [expected] * 8


def test_the_text_that_is_scored_is_the_users_choice(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    documents = [Document(content="a", meta={"title": "z"}), Document(content="k", meta={"title": "b"})]

    def scores(text: Any) -> list[float | None]:
        found = ranked(OnnxRerank(model=folder, activation="identity", text=text), documents)
        return [document.score for document in found]

    assert scores("title") == scores(["title"]) == [toy_score("q", "z"), toy_score("q", "b")]
    assert scores(lambda document: document.content + " y") == [toy_score("q", "k y"), toy_score("q", "a y")]
    assert scores(["titel", "content"]) == [toy_score("q", "k"), toy_score("q", "a")]
    assert "'titel', which none of the 2 documents has" in caplog.text


def test_the_first_stages_score_can_be_kept(folder: Path) -> None:
    keeping = OnnxRerank(model=folder, keep_retrieval_score=True)

    once = ranked(keeping, documents_of("a"))
    twice = ranked(keeping, once)

    assert once[0].meta == twice[0].meta == {"place": 0, "retrieval_score": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": 3}, "did you mean top_k"),
        ({"device": "cpu"}, "called providers"),
        ({"scale_score": True}, "called activation"),
        ({"meta_fields_to_embed": ["title"]}, "called text"),
    ],
)
def test_an_unknown_option_names_the_one_that_is_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OnnxRerank(model="lexical", **options)


def test_its_parameters_are_the_doors_options() -> None:
    expected = {"top_k" if name == "top_n" else name for name in RerankOptions.model_fields}

    assert set(inspect.signature(OnnxRerank.__init__).parameters) - {"self"} == expected
    assert all(f"        {name}: " in (OnnxRerank.__doc__ or "") for name in expected)
    assert " Default: 3. Example: ``top_k=5``." in " ".join((OnnxRerank.__doc__ or "").split())


def test_it_survives_a_dict_and_a_copy(folder: Path) -> None:
    ranker = OnnxRerank(
        model=folder,
        top_k=None,
        score_threshold=0.0,
        activation="identity",
        text="title",
        max_length=32,
        providers=[("CPUExecutionProvider", {})],
    )
    data = ranker.to_dict()

    assert data == {
        "type": "onnx_rerank_integrations.haystack.OnnxRerank",
        "init_parameters": {
            "model": str(folder),
            "top_k": None,
            "score_threshold": 0.0,
            "activation": "identity",
            "text": ["title"],
            "max_length": 32,
            "providers": [["CPUExecutionProvider", {}]],
        },
    }
    assert OnnxRerank.from_dict(data).options == ranker.options == copy.deepcopy(ranker).options
    assert OnnxRerank(model="lexical").to_dict()["init_parameters"] == {"model": "lexical", "top_k": 3}
    with pytest.raises(ValueError, match="model is a live encoder, which can't be serialized"):
        OnnxRerank(model=TextCrossEncoder(folder)).to_dict()


def pipeline(kind: Any = Pipeline) -> Any:
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=text, meta={"page": place}) for place, text in enumerate(PASSAGES)])
    made = kind()
    made.add_component("retriever", InMemoryBM25Retriever(store, top_k=4))
    made.add_component("joiner", DocumentJoiner(sort_by_score=False))
    made.add_component("ranker", OnnxRerank(model="lexical", top_k=2))
    made.connect("retriever", "joiner")
    made.connect("joiner", "ranker.documents")
    return made


def test_it_ranks_in_a_pipeline() -> None:
    made = pipeline()
    call = {"retriever": {"query": QUESTION}, "ranker": {"query": QUESTION}}

    documents = made.run(call)["ranker"]["documents"]
    [best] = made.run({**call, "ranker": {"query": QUESTION, "top_k": 1}})["ranker"]["documents"]

    assert documents[0].content == best.content == ANSWER
    assert (len(documents), best.meta) == (2, {"page": 2})


async def test_it_ranks_in_an_asynchronous_pipeline() -> None:
    call = {"retriever": {"query": QUESTION}, "ranker": {"query": QUESTION}}
    expected = pipeline().run(call)["ranker"]["documents"]
    made = pipeline(getattr(haystack, "AsyncPipeline", Pipeline))  # one class for both from version 3 on

    answer = await made.run_async(call)

    assert answer["ranker"]["documents"] == expected


def test_a_pipeline_with_it_can_be_written_and_read() -> None:
    made = Pipeline()
    made.add_component("ranker", OnnxRerank(model="lexical", top_k=1, text=["page", "content"]))
    trusting = {"allowed_modules": ["onnx_rerank_integrations.haystack"]}
    takes = inspect.signature(Pipeline.loads).parameters  # version 3 wants to be told

    again = Pipeline.loads(made.dumps(), **(trusting if "allowed_modules" in takes else {}))

    documents = [Document(content=text, meta={"page": place}) for place, text in enumerate(PASSAGES)]
    call = {"ranker": {"query": QUESTION, "documents": documents}}
    assert again.run(call) == made.run(call)
    assert again.run(call)["ranker"]["documents"][0].content == ANSWER


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "haystack":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import onnx_rerank_integrations
try:
    import onnx_rerank_integrations.haystack
except onnx_rerank_integrations.MissingExtraError as error:
    print(error)
"""


def test_a_missing_framework_names_the_pip_command() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)

    assert 'pip install "onnx-rerank-integrations[haystack]"' in done.stdout


def test_the_door_imports_no_other_framework() -> None:
    code = "import sys, haystack; own = set(sys.modules); import onnx_rerank_integrations.haystack; "
    code += "print(*{name.split('.')[0] for name in set(sys.modules) - own})"  # Haystack takes transformers along
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "onnx_rerank_integrations" in done.stdout.split()
    assert not set(done.stdout.split()) & {"langchain_core", "llama_index", "torch", "transformers"}


def test_the_docstrings_example_is_true() -> None:
    [example] = [test for test in doctest.DocTestFinder(recurse=False).find(OnnxRerank) if test.examples]

    result = doctest.DocTestRunner().run(example)

    assert result.attempted >= 5
    assert result.failed == 0
