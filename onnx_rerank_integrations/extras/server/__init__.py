"""A reranking server that existing clients can call: ``onnx-rerank serve`` (extra [server]: FastAPI, uvicorn).

settings.py     what can be set: limits, keys, times
shapes.py       requests and answers of Cohere, Jina and TEI
pair_queue.py   pairs of all requests, in shared batches
models.py       the models that are served, opened while the server answers already
gate.py         what a request passes before a route sees it: key, size, time
metrics.py      what is counted, for Prometheus
app.py          the routes
run.py          the process: uvicorn, signals, draining
page.html       the page at /
"""
