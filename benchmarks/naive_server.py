"""The server that one writes in twenty lines: one lock, one call per request. To compare with; not to be used."""

import sys
import threading

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from onnx_rerank_integrations import TextCrossEncoder

app = FastAPI()
encoder = TextCrossEncoder(sys.argv[1], lazy_load=True)
lock = threading.Lock()


class Request(BaseModel):
    """What it takes, in TEI's shape."""

    query: str
    texts: list[str]


@app.post("/rerank")
def rerank(request: Request) -> list[dict[str, float]]:
    """The logits, in the order of the texts."""
    with lock:
        scores = encoder.rerank(request.query, request.texts)
    return [{"index": index, "score": score} for index, score in enumerate(scores)]


if __name__ == "__main__":
    encoder.load()
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
