"""LangChain's retriever and step on langchain-core alone, LangGraph and agents, in the real framework.

The cases of the list of behaviours that belong here, and the tests that hold them:

    19  retriever and tool     test_every_way_of_calling_gives_the_same, test_an_agent_uses_the_retriever_as_its_tool
    20  as_runnable            test_a_step_has_a_name_and_schemas
    32  names of others        test_an_unknown_option_names_the_one_that_is_meant
    35  OnnxRerankRetriever    TestStandardSuite, TestStandardSuiteByFirstStage,
                               test_a_retrieval_is_one_run_with_two_under_it,
                               test_limits_are_given_by_call_by_config_and_by_declared_fields
    36  RunnableSerializable   test_a_step_lets_its_limits_be_configured, test_a_step_has_alternatives,
                               test_a_step_can_be_tried_again_and_replaced, test_a_step_survives_dumps_and_loads,
                               test_it_is_a_node_of_a_graph
"""

from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_core.tools import create_retriever_tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import BaseModel, ValidationError

from onnx_rerank_integrations import InputTypeError, InputValueError, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core.onnx_cross_encoder import OnnxCrossEncoder
from onnx_rerank_integrations.langchain import OnnxRerank, OnnxRerankRetriever, RerankStep
from tests.test_langchain import ANSWER, PASSAGES, QUESTION, HashedWords, documents_of, texts_of
from tests.toy import make_toy

WORDS = ["c", "z", "a", "k", "b"]
BEST_FIRST = ["z", "k", "c", "b", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def rerank(folder: Path) -> OnnxRerank:
    """The toy: the later a letter in the alphabet, the better."""
    return OnnxRerank(model=folder, activation="identity", top_n=3)


@pytest.fixture(scope="module")
def lexical() -> OnnxRerank:
    return OnnxRerank(model="lexical", top_n=3)


@pytest.fixture(scope="module")
def passages() -> VectorStoreRetriever:
    return InMemoryVectorStore.from_texts(PASSAGES, HashedWords()).as_retriever(search_kwargs={"k": 6})


class Found(BaseRetriever):
    """Finds the words, whatever the query, and takes no k."""

    words: list[str] = WORDS

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return documents_of(*self.words)


@pytest.fixture
def retriever(rerank: OnnxRerank) -> OnnxRerankRetriever:
    return rerank.as_retriever(Found())


class TestStandardSuite(RetrieversIntegrationTests):
    """langchain_tests' own tests of a retriever, of the class itself."""

    @property
    def retriever_constructor(self) -> type[OnnxRerankRetriever]:
        return OnnxRerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryVectorStore.from_texts(PASSAGES, HashedWords())
        return {"retriever": store.as_retriever(search_kwargs={"k": 6}), "model": "lexical"}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"


class TestStandardSuiteByFirstStage(TestStandardSuite):
    """The same with ``k``, the number of documents that the first stage is asked for."""

    @property
    def num_results_arg_name(self) -> str:
        return "k"


# The retriever


async def test_every_way_of_calling_gives_the_same(passages: VectorStoreRetriever, lexical: OnnxRerank) -> None:
    found = passages.invoke(QUESTION)
    expected = lexical.compress_documents(found, QUESTION)
    retriever = OnnxRerankRetriever(retriever=passages, reranker=lexical)

    assert expected[0].page_content == ANSWER != found[0].page_content
    assert retriever.invoke(QUESTION) == await retriever.ainvoke(QUESTION) == expected
    assert retriever.batch([QUESTION, QUESTION]) == await retriever.abatch([QUESTION, QUESTION]) == [expected] * 2
    assert list(retriever.stream(QUESTION)) == [chunk async for chunk in retriever.astream(QUESTION)] == [expected]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_retrieval_is_one_run_with_two_under_it(
    how: str, passages: VectorStoreRetriever, lexical: OnnxRerank
) -> None:
    retriever = lexical.as_retriever(passages, k=5)
    collector = RunCollectorCallbackHandler()
    config: Any = {"callbacks": [collector], "tags": ["mine"]}

    ranked = retriever.invoke(QUESTION, config) if how == "sync" else await retriever.ainvoke(QUESTION, config)

    [root] = collector.traced_runs
    assert (root.name, root.run_type, root.outputs) == ("OnnxRerankRetriever", "retriever", {"documents": ranked})
    assert [(run.name, run.run_type, run.parent_run_id) for run in root.child_runs] == [
        ("VectorStoreRetriever", "retriever", root.id),
        ("rerank", "chain", root.id),
    ]
    assert all(run.child_runs == [] and run.tags and "mine" in run.tags for run in root.child_runs)
    facts = {"model": "lexical", "documents": 5, "top_n": 3, "score_threshold": None}
    assert root.child_runs[1].metadata.items() >= facts.items()


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("broken", ["first stage", "rerank"])
async def test_a_failure_ends_the_runs_with_its_error(broken: str, how: str, rerank: OnnxRerank) -> None:
    def refuse(query: str) -> list[Document]:
        raise ConnectionError("the store is away")

    first = RunnableLambda(refuse) if broken == "first stage" else Found(words=["a", "nan"])
    retriever = rerank.as_retriever(first)
    collector = RunCollectorCallbackHandler()

    expected = ConnectionError if broken == "first stage" else ScoreError
    if how == "sync":
        with pytest.raises(expected):
            retriever.invoke("q", {"callbacks": [collector]})
    else:
        with pytest.raises(expected):
            await retriever.ainvoke("q", {"callbacks": [collector]})

    [root] = collector.traced_runs
    assert root.error
    assert [bool(run.error) for run in root.child_runs] == ([True] if broken == "first stage" else [False, True])


async def test_the_first_stage_is_asked_for_k_documents(passages: VectorStoreRetriever, lexical: OnnxRerank) -> None:
    every = lexical.model_copy(update={"top_n": None})

    assert len(every.as_retriever(passages).invoke(QUESTION)) == 6
    assert len(every.as_retriever(passages, k=2).invoke(QUESTION)) == 2
    assert len(await every.as_retriever(passages, k=2).ainvoke(QUESTION, k=4)) == 4
    assert len(every.as_retriever(passages.with_retry(), k=2).invoke(QUESTION)) == 2
    assert len(every.as_retriever(every.as_retriever(passages), k=2).invoke(QUESTION)) == 2
    with pytest.raises(ValidationError, match="k"):
        every.as_retriever(passages, k=0)
    with pytest.raises(InputValueError, match="k=0"):
        every.as_retriever(passages).invoke(QUESTION, k=0)


@pytest.mark.parametrize("first", [Found(), RunnableLambda(lambda query: documents_of(*WORDS))])
def test_a_first_stage_that_takes_no_k_is_never_asked_in_silence(first: Any, rerank: OnnxRerank) -> None:
    message = rf"k=4 can't be asked of {type(first).__name__}, which takes no k.*: set there how many"

    with pytest.raises(InputValueError, match=message):
        rerank.as_retriever(first, k=4)
    with pytest.raises(InputValueError, match=message):
        rerank.as_retriever(first).invoke("q", k=4)
    assert texts_of(rerank.as_retriever(first).invoke("q")) == BEST_FIRST[:3]


def test_the_rerankers_options_can_be_the_retrievers_own(folder: Path) -> None:
    retriever = OnnxRerankRetriever(
        retriever=Found(), model=folder, top_n=2, activation="identity", score_key="mine", score_threshold=-1e9
    )

    assert retriever.reranker == OnnxRerank(
        model=folder, activation="identity", score_key="mine", top_n=3, score_threshold=None
    )
    assert (retriever.top_n, retriever.score_threshold) == (2, -1e9)
    assert [sorted(document.metadata) for document in retriever.invoke("q")] == [["mine", "place"]] * 2


def test_its_limits_begin_as_the_rerankers(rerank: OnnxRerank) -> None:
    few = rerank.model_copy(update={"top_n": 1, "score_threshold": 0.5})

    for made in (few.as_retriever(Found()), few.as_runnable(), RerankStep(reranker=few)):
        assert (made.top_n, made.score_threshold) == (1, 0.5)
    assert OnnxRerankRetriever(retriever=Found(), reranker=few, top_n=None).top_n is None
    assert few.top_n == 1


def test_options_of_a_ready_reranker_are_refused(rerank: OnnxRerank) -> None:
    with pytest.raises(InputValueError, match="max_length, text can't be combined with a ready reranker"):
        OnnxRerankRetriever(retriever=Found(), reranker=rerank, max_length=16, text="title")
    with pytest.raises(ValidationError, match="OnnxRerank"):
        OnnxRerankRetriever(retriever=Found(), reranker="a name")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "called top_n"),
        ({"base_retriever": Found()}, "called retriever"),
        ({"device": "cpu"}, "called providers"),
        ({"topn": 3}, "did you mean top_n"),
        ({"top_n": 0}, "greater than or equal to 1"),
        ({"retriever": "a name"}, "Runnable"),
        (
            {"retriever": InMemoryVectorStore(HashedWords())},
            r"a retriever is needed: InMemoryVectorStore gives one by as_retriever\(\)",
        ),
    ],
)
def test_an_unknown_option_names_the_one_that_is_meant(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        OnnxRerankRetriever(**{"retriever": Found(), "model": folder, "lazy_load": True, **options})


def test_limits_are_checked_when_they_are_assigned_or_given_to_a_call(retriever: OnnxRerankRetriever) -> None:
    with pytest.raises(ValidationError, match="top_n"):
        retriever.top_n = 0
    assert retriever.top_n == 3
    with pytest.raises(InputValueError, match="top_n=0"):
        retriever.invoke("q", top_n=0)
    with pytest.raises(InputTypeError, match="top_n must be a whole number"):
        retriever.invoke("q", {"configurable": {"top_n": "2"}})
    with pytest.raises(TypeError, match="top_k"):
        retriever.invoke("q", top_k=1)


async def test_a_step_takes_limits_as_keywords_too(folder: Path) -> None:
    step = OnnxRerank(model=folder, top_n=3).as_runnable()
    call = {"query": "q", "documents": Found().invoke("q"), "top_n": 2}

    assert texts_of(step.bind(top_n=1).invoke(call)) == BEST_FIRST[:1]
    assert texts_of(await step.bind(score_threshold=1e9).ainvoke(call)) == []
    with pytest.raises(InputTypeError, match=r"takes top_n and score_threshold beside its input, not \['top_k'\]"):
        step.invoke(call, top_k=1)


async def test_limits_are_given_by_call_by_config_and_by_declared_fields(retriever: OnnxRerankRetriever) -> None:
    declared = retriever.configurable_fields(top_n=ConfigurableField(id="best"))

    assert texts_of(retriever.invoke("q", top_n=1)) == BEST_FIRST[:1]
    assert texts_of(await retriever.ainvoke("q", top_n=None)) == BEST_FIRST
    assert texts_of(retriever.invoke("q", {"configurable": {"top_n": 2}})) == BEST_FIRST[:2]
    assert texts_of(await retriever.ainvoke("q", {"configurable": {"top_n": 2}})) == BEST_FIRST[:2]
    assert texts_of(retriever.with_config(configurable={"top_n": 2}).invoke("q")) == BEST_FIRST[:2]
    assert texts_of(retriever.invoke("q", {"configurable": {"top_n": 2}}, top_n=1)) == BEST_FIRST[:1]
    assert texts_of(declared.invoke("q", {"configurable": {"best": 1}})) == BEST_FIRST[:1]
    assert [
        texts_of(found) for found in declared.batch(["q", "q"], [{"configurable": {"best": n}} for n in (1, 2)])
    ] == [
        BEST_FIRST[:1],
        BEST_FIRST[:2],
    ]
    assert [(spec.id, spec.default) for spec in declared.config_specs] == [("best", 3)]
    third_best = retriever.invoke("q")[2].metadata["relevance_score"]
    assert len(retriever.invoke("q", score_threshold=third_best + 1e-6)) == 2
    assert retriever.invoke("q", {"configurable": {"score_threshold": 1e9}}) == []


def test_the_first_stage_gets_the_config_too(passages: VectorStoreRetriever, lexical: OnnxRerank) -> None:
    first = passages.configurable_fields(search_kwargs=ConfigurableField(id="search"))
    retriever = OnnxRerankRetriever(retriever=first, reranker=lexical, top_n=None)
    collector = RunCollectorCallbackHandler()

    found = retriever.invoke(QUESTION, {"configurable": {"search": {"k": 2}}, "callbacks": [collector]})

    assert len(found) == 2
    assert [spec.id for spec in retriever.config_specs] == ["search"]
    assert len(collector.traced_runs) == 1


def test_a_configured_call_opens_no_model_anew(retriever: OnnxRerankRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    retriever.invoke("q")
    opened: list[object] = []
    real = OnnxCrossEncoder.__init__

    def counted(self: OnnxCrossEncoder, *args: Any, **options: Any) -> None:
        opened.append(self)
        real(self, *args, **options)

    monkeypatch.setattr(OnnxCrossEncoder, "__init__", counted)
    step = retriever.reranker.as_runnable().configurable_fields(top_n=ConfigurableField(id="best"))
    call: Any = {"query": "q", "documents": documents_of(*WORDS)}

    for best in (1, 2):
        config: Any = {"configurable": {"best": best}}
        declared = retriever.configurable_fields(top_n=ConfigurableField(id="best"))
        assert len(declared.invoke("q", config)) == len(step.invoke(call, config)) == best
    assert opened == []


async def test_copies_and_pickles_work_like_the_original(retriever: OnnxRerankRetriever) -> None:
    ranked = retriever.invoke("q")

    for again in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever), retriever.model_copy()):
        assert again == retriever
        assert again.invoke("q") == await again.ainvoke("q") == ranked
    assert retriever.model_copy(update={"top_n": 1}).invoke("q") == ranked[:1]


def test_nothing_found_is_nothing_ranked(tmp_path: Path) -> None:
    lazy = OnnxRerank(model=tmp_path / "nowhere", lazy_load=True)

    assert lazy.as_retriever(Found(words=[])).invoke("q") == []


ALONE = """
import sys
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from onnx_rerank_integrations.langchain import OnnxRerank
find = RunnableLambda(lambda query: [Document("a"), Document("z")])
found = OnnxRerank(model=sys.argv[1], top_n=1).as_retriever(find).invoke("q")
assert [document.page_content for document in found] == ["z"], found
print(*{name.split(".")[0] for name in sys.modules if name.startswith("lang")})
"""


def test_it_needs_langchain_core_alone(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) <= {"langchain_core", "langchain_protocol", "langsmith"}


# The step


def step_call(*words: str) -> Any:
    return {"query": "q", "documents": documents_of(*words or WORDS)}


async def test_a_step_lets_its_limits_be_configured(rerank: OnnxRerank) -> None:
    step = rerank.as_runnable()
    declared = step.configurable_fields(
        top_n=ConfigurableField(id="best", name="Best"), score_threshold=ConfigurableField(id="least")
    )

    assert isinstance(step, RunnableSerializable)
    assert texts_of(step.invoke(step_call(), {"configurable": {"top_n": 1}})) == BEST_FIRST[:1]
    assert texts_of(await step.ainvoke(step_call(), {"configurable": {"top_n": None}})) == BEST_FIRST
    assert texts_of(step.invoke({**step_call(), "top_n": 2}, {"configurable": {"top_n": 1}})) == BEST_FIRST[:2]
    assert step.invoke(step_call(), {"configurable": {"score_threshold": 1e9}}) == []
    assert step.invoke({**step_call(), "score_threshold": 1e9}) == []
    assert texts_of(declared.invoke(step_call(), {"configurable": {"best": 2}})) == BEST_FIRST[:2]
    assert await declared.ainvoke(step_call(), {"configurable": {"least": 1e9}}) == []
    assert texts_of(declared.invoke(step_call())) == BEST_FIRST[:3]
    assert {spec.id: spec.default for spec in declared.config_specs} == {"best": 3, "least": None}
    with pytest.raises(ValidationError, match="top_n"):
        declared.invoke(step_call(), {"configurable": {"best": 0}})


async def test_a_step_has_alternatives(rerank: OnnxRerank, tmp_path: Path) -> None:
    other = OnnxRerank(model=make_toy(tmp_path), activation="identity", top_n=1)
    step = rerank.as_runnable().configurable_alternatives(
        ConfigurableField(id="reranker"), default_key="three", one=other.as_runnable()
    )

    assert texts_of(step.invoke(step_call())) == BEST_FIRST[:3]
    assert texts_of(step.invoke(step_call(), {"configurable": {"reranker": "one"}})) == BEST_FIRST[:1]
    assert texts_of(await step.ainvoke(step_call(), {"configurable": {"reranker": "one"}})) == BEST_FIRST[:1]


async def test_a_step_can_be_tried_again_and_replaced(rerank: OnnxRerank) -> None:
    step = rerank.as_runnable()
    tries: list[str] = []

    def text(document: Document) -> str:
        tries.append(document.page_content)
        if len(tries) < 3:
            raise ConnectionError("the text is away")
        return document.page_content

    again = rerank.model_copy(update={"text": text}).as_runnable().with_retry(wait_exponential_jitter=False)
    instead = step.with_fallbacks([RunnableLambda(lambda call: call["documents"])])

    assert texts_of(again.invoke(step_call())) == BEST_FIRST[:3]
    assert texts_of(instead.invoke(step_call("nan", "a"))) == ["nan", "a"]
    assert texts_of(await instead.ainvoke(step_call("nan", "a"))) == ["nan", "a"]
    assert texts_of(instead.invoke(step_call())) == BEST_FIRST[:3]


def test_a_step_has_a_name_and_schemas(rerank: OnnxRerank) -> None:
    step = rerank.as_runnable()
    takes, gives = step.get_input_jsonschema(), step.get_output_jsonschema()

    assert step.get_name() == step.name == "rerank"
    assert set(takes["properties"]) == {"query", "documents", "top_n", "score_threshold"}
    assert takes["required"] == ["query", "documents"]
    assert (gives["type"], gives["items"]) == ("array", {"$ref": "#/$defs/Document"})
    assert [node.name for node in step.get_graph().nodes.values()][1] == "rerank"


async def test_a_step_survives_dumps_and_loads(rerank: OnnxRerank) -> None:
    few = rerank.model_copy(update={"top_n": 1, "score_threshold": 1e9})
    lenient = RerankStep(reranker=few, top_n=3, score_threshold=None)
    allowed: Any = {"allowed_objects": [OnnxRerank, RerankStep], "valid_namespaces": ["onnx_rerank_integrations"]}

    for step in (rerank.as_runnable(), lenient, RerankStep(reranker=few, top_n=None)):
        again = loads(dumps(step), **allowed)
        assert again == step
        assert again.invoke(step_call()) == step.invoke(step_call())
        assert pickle.loads(pickle.dumps(step)) == copy.deepcopy(step) == step
    with pytest.raises(ValueError, match="model is a live encoder, which can't be serialized"):
        dumps(OnnxRerank(model=TextCrossEncoder(str(rerank.model))).as_runnable())


# LangGraph and agents


class State(TypedDict):
    query: str
    documents: list[Document]


async def test_it_is_a_node_of_a_graph(rerank: OnnxRerank) -> None:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    graph.add_node("find", lambda state: {"documents": documents_of(*WORDS)})
    graph.add_node("rerank", RunnableParallel(documents=rerank.as_runnable()))
    graph.add_edge(START, "find")
    graph.add_edge("find", "rerank")
    graph.add_edge("rerank", END)
    app = graph.compile()
    collector = RunCollectorCallbackHandler()
    few: Any = {"configurable": {"top_n": 1, "thread_id": "7"}}

    assert texts_of(app.invoke({"query": "q"}, {"callbacks": [collector]})["documents"]) == BEST_FIRST[:3]  # type: ignore[arg-type]
    assert texts_of(app.invoke({"query": "q"}, few)["documents"]) == BEST_FIRST[:1]  # type: ignore[arg-type]
    assert texts_of((await app.ainvoke({"query": "q"}, few))["documents"]) == BEST_FIRST[:1]  # type: ignore[arg-type]
    updates = [chunk async for chunk in app.astream({"query": "q"}, stream_mode="updates")]  # type: ignore[arg-type]
    assert texts_of(updates[-1]["rerank"]["documents"]) == BEST_FIRST[:3]
    [root] = collector.traced_runs
    [node] = [node for node in root.child_runs if node.name == "rerank"]
    [parallel] = node.child_runs
    assert [run.name for run in parallel.child_runs] == ["rerank"]


async def test_a_retriever_in_a_graph_hears_its_config(retriever: OnnxRerankRetriever) -> None:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    graph.add_node("retrieve", lambda state: {"documents": retriever.invoke(state["query"])})
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", END)

    answer = graph.compile().invoke({"query": "q"}, {"configurable": {"top_n": 1}})  # type: ignore[arg-type]

    assert texts_of(answer["documents"]) == BEST_FIRST[:1]


class ScriptedChat(GenericFakeChatModel):
    """A chat model that says what the script holds, and takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> ScriptedChat:
        return self


async def test_an_agent_uses_the_retriever_as_its_tool(passages: VectorStoreRetriever, lexical: OnnxRerank) -> None:
    from langchain.agents import create_agent

    retriever = lexical.as_retriever(passages, k=8)
    tool = create_retriever_tool(retriever, "search", "Searches.", response_format="content_and_artifact")
    script = [
        AIMessage("", tool_calls=[{"name": "search", "args": {"query": QUESTION}, "id": "1"}]),
        AIMessage("They stay in the hive."),
    ]
    agent = create_agent(ScriptedChat(messages=iter(script * 2)), [tool])
    question: Any = {"messages": [("user", QUESTION)]}

    for answer in (agent.invoke(question), await agent.ainvoke(question)):
        [message] = [message for message in answer["messages"] if isinstance(message, ToolMessage)]
        assert message.artifact == retriever.invoke(QUESTION)
        assert message.content.startswith(ANSWER)
        assert answer["messages"][-1].content == "They stay in the hive."


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_an_agent_may_leave_the_limits_of_the_steps_tool_out(rerank: OnnxRerank) -> None:
    from langchain.agents import create_agent

    tool = rerank.as_runnable().as_tool()
    found = [{"page_content": word} for word in WORDS]
    calls = [{"query": "q", "documents": found}, {"query": "q", "documents": found, "top_n": 1}]
    script = [AIMessage("", tool_calls=[{"name": "rerank", "args": args, "id": "1"}]) for args in calls]
    agent = create_agent(ScriptedChat(messages=iter([*script, AIMessage("Done.")] * 2)), [tool])
    question: Any = {"messages": [("user", "q")]}

    for answer in (agent.invoke(question), await agent.ainvoke(question)):
        messages = [message.content for message in answer["messages"] if isinstance(message, ToolMessage)]
        assert [content.count("page_content=") for content in messages] == [3, 1]
        assert all(f"page_content='{BEST_FIRST[0]}'" in content for content in messages)
    takes = tool.tool_call_schema.model_json_schema()  # what a model is shown
    assert takes["required"] == ["query", "documents"]
    assert {name: takes["properties"][name]["default"] for name in ("top_n", "score_threshold")} == {
        "top_n": 3,
        "score_threshold": None,
    }
    assert texts_of(tool.invoke(calls[0], {"configurable": {"top_n": 2}})) == BEST_FIRST[:2]
    assert texts_of(tool.invoke({**calls[0], "top_n": None})) == BEST_FIRST


async def test_a_chain_over_the_retriever(retriever: OnnxRerankRetriever) -> None:
    chain: Runnable[str, Any] = RunnableParallel(
        query=RunnablePassthrough(), found=retriever | RunnableLambda(texts_of)
    )

    assert chain.invoke("q") == await chain.ainvoke("q") == {"query": "q", "found": BEST_FIRST[:3]}


@pytest.mark.parametrize("documented", [OnnxRerankRetriever, RerankStep])
def test_the_docstrings_examples_are_true(documented: type) -> None:
    [example] = [test for test in doctest.DocTestFinder(recurse=False).find(documented) if test.examples]

    result = doctest.DocTestRunner().run(example)

    assert result.attempted >= 3
    assert result.failed == 0


@pytest.mark.parametrize("documented", [OnnxRerankRetriever, RerankStep, OnnxRerank])
def test_every_field_of_ours_is_described_where_help_shows_it(documented: type[BaseModel]) -> None:
    frameworks = {"name", "tags", "metadata"}
    described = {name: field.description for name, field in documented.model_fields.items() if name not in frameworks}

    assert all(described.values())
    assert all(f"        {name}: " in (documented.__doc__ or "") for name in described)
