"""Run by CI with the installed wheel in an empty environment: `python wheel_smoke.py [EXTRA]`.

It ranks offline and drags nothing in; with an extra, what the extra is for works too.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import onnx_rerank_integrations
from onnx_rerank_integrations import MissingExtraError, TextCrossEncoder

QUERY = "What is the capital of France?"
DOCUMENTS = ["Berlin is the capital of Germany.", "Paris is the capital of France."]


def core() -> None:
    ranked = TextCrossEncoder("lexical").rank(QUERY, DOCUMENTS, top_n=1)
    assert ranked[0].index == 1, ranked
    documents = ["Cold water kills animals.", "Hedgehogs and bears hibernate in winter."]
    ranked = TextCrossEncoder("embedded").rank("Which animals sleep through the cold season?", documents)
    assert ranked[0].index == 1, ranked
    top_level = {name.partition(".")[0] for name in sys.modules}
    unwanted = top_level & {"torch", "transformers", "langchain_core", "llama_index", "onnx", "pydantic", "typer"}
    assert not unwanted, unwanted
    assert "site-packages" in onnx_rerank_integrations.__file__, onnx_rerank_integrations.__file__


def without_extras() -> None:
    """A missing extra names the pip command."""
    for module, extra in (("langchain", "langchain"), ("llama_index", "llama-index"), ("haystack", "haystack")):
        try:
            __import__(f"onnx_rerank_integrations.{module}")
        except MissingExtraError as error:
            assert f'pip install "onnx-rerank-integrations[{extra}]"' in str(error), error  # noqa: PT017
        else:
            raise AssertionError(f"{module} was imported without its framework")
    command = subprocess.run(["onnx-rerank", "version"], capture_output=True, text=True, check=False)
    assert command.returncode == 1, command
    assert "[cli]" in command.stderr, command


def langchain() -> None:
    from langchain_core.documents import Document

    from onnx_rerank_integrations.langchain import OnnxRerank

    documents = [Document(page_content=text) for text in DOCUMENTS]
    assert OnnxRerank(model="lexical", top_n=1).compress_documents(documents, QUERY)[0].page_content == DOCUMENTS[1]
    assert "llama_index" not in sys.modules


def llama_index() -> None:
    from llama_index.core.schema import NodeWithScore, TextNode

    from onnx_rerank_integrations.llama_index import OnnxRerank

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    assert OnnxRerank(model="lexical", top_n=1).postprocess_nodes(nodes, query_str=QUERY)[0].text == DOCUMENTS[1]
    assert "langchain_core" not in sys.modules


def haystack() -> None:
    from haystack import Document

    from onnx_rerank_integrations.haystack import OnnxRerank

    documents = [Document(content=text) for text in DOCUMENTS]
    ranked = OnnxRerank(model="lexical", top_k=1).run(query=QUERY, documents=documents)
    assert ranked["documents"][0].content == DOCUMENTS[1]
    assert not {"langchain_core", "llama_index"} & sys.modules.keys()


def cli() -> None:
    command = ["onnx-rerank", "rank", QUERY, "-", "--model", "lexical", "--top-n", "1"]
    done = subprocess.run(command, input="\n".join(DOCUMENTS), capture_output=True, text=True, check=True)
    assert DOCUMENTS[1] in done.stdout, done
    assert DOCUMENTS[0] not in done.stdout, done


def batch() -> None:
    cli()
    rows = [{"query": QUERY, "text": text} for text in DOCUMENTS]
    Path("candidates.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = ["onnx-rerank", "batch", "candidates.jsonl", "scored.parquet", "--model", "lexical", "--overwrite"]
    subprocess.run(command, capture_output=True, check=True)
    import pyarrow.parquet as pq

    assert pq.read_table("scored.parquet").column("rank").to_pylist() == [2, 1]


def evaluate() -> None:
    cli()
    subprocess.run(["onnx-rerank", "evaluate", "--help"], capture_output=True, check=True)
    import bm25s
    import ir_measures
    import Stemmer

    assert bm25s, (ir_measures, Stemmer)


def files() -> None:
    """A Word file of the library's own is ranked by its sections."""
    cli()
    import docx

    document = docx.Document()
    for place, text in enumerate(DOCUMENTS):
        document.add_heading(f"Section {place}", 1)
        document.add_paragraph(text)
    document.save("sections.docx")
    command = ["onnx-rerank", "rank", QUERY, "sections.docx", "--model", "lexical", "--top-n", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert DOCUMENTS[1] in done.stdout, done
    import pypdf

    assert pypdf


def plot() -> None:
    from onnx_rerank_integrations.extras.plot import plot_scores

    assert plot_scores([0.1, 0.5, 0.9]).axes


def optimize() -> None:
    from onnx_rerank_integrations.core.graphs.first_token import first_token_graph

    assert callable(first_token_graph)


def openvino() -> None:
    """The small model of the package, in another engine."""
    ours = TextCrossEncoder("lexical").rerank(QUERY, DOCUMENTS)
    other = TextCrossEncoder("lexical", backend="openvino").rerank(QUERY, DOCUMENTS)
    assert max(abs(a - b) for a, b in zip(ours, other, strict=True)) < 1e-3, (ours, other)


def server() -> None:
    """A server in a process of its own answers a request, and ends when it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen(["onnx-rerank", "serve", "--model", "lexical", "--port", str(port)])
    body = json.dumps({"query": QUERY, "texts": DOCUMENTS}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rerank", body, headers={"Content-Type": "application/json"}
    )
    try:
        while serving.poll() is None:  # until it listens, and its model is open
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=120) as answer:
                best = json.load(answer)[0]["index"]
                break
            time.sleep(0.2)
        assert DOCUMENTS[best] == DOCUMENTS[1], best
    finally:
        serving.terminate()
        assert serving.wait(timeout=120) == 0


CHECKS: dict[str, Callable[[], None]] = {
    "": without_extras,
    "langchain": langchain,
    "llama-index": llama_index,
    "haystack": haystack,
    "cli": cli,
    "batch": batch,
    "evaluate": evaluate,
    "files": files,
    "plot": plot,
    "optimize": optimize,
    "openvino": openvino,
    "server": server,
}

if __name__ == "__main__":
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    core()
    CHECKS[extra]()
    print(f"{onnx_rerank_integrations.__version__} works from its wheel{f' with [{extra}]' if extra else ''}")
