"""Load on the server over loopback, beside the naive one: `python -m benchmarks.serve`.

Closed loops: so many clients, each of which sends its next request when it has the answer to the last. All send the
same requests, each of which is checked against the scores that the encoder gives here. Levels and servers take turns in
each round, so that a busy machine is busy for all. Bounded: some minutes.
"""

import argparse
import http.client
import itertools
import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import models
from benchmarks.texts import Group, Workload, make_calls
from onnx_rerank_integrations import TextCrossEncoder

CLIENTS = (1, 8, 32, 128)
DOCUMENTS = (1, 2, 3, 5, 10, 20)
"""A request has one of these numbers of documents, of 10 to 120 words."""
WORDS = (10, 120)
CLOSE = 1e-3
"""A score that is farther from the encoder's own is wrong; fp32 differs by 1e-5 from batch to batch."""
START_SECONDS, LEVEL_SECONDS = 120, 120
SMALL_QUEUE = 4_000
"""Tokens that the server of the overloaded run lets wait."""


@dataclass
class Level:
    """What clients saw of one server, and what it cost.

    Attributes:
        latencies: Seconds of each request that was answered with scores.
        seconds: Wall clock of all of it.
        cpu: CPU seconds of the server.
        memory: Largest resident memory of the server that was seen, in MB.
        refused: Answers 429.
        wrong: Answers with scores that aren't the encoder's.
        failed: Anything else.
        unfinished: Requests that the time ended before.
    """

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    refused: int = 0
    wrong: int = 0
    failed: int = 0
    unfinished: int = 0

    def add(self, other: "Level") -> None:
        """Takes another round of the same level in."""
        self.latencies += other.latencies
        self.memory = max(self.memory, other.memory)
        for name in ("seconds", "cpu", "refused", "wrong", "failed", "unfinished"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def throughput(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """Milliseconds, interpolated."""
        if len(self.latencies) < 2:
            return float("nan")
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1] * 1000


def make_requests(count: int, seed: int = 0) -> list[Group]:
    """Queries with documents; equal for equal arguments."""
    chance = random.Random(seed)
    sizes = [chance.choice(DOCUMENTS) for _ in range(count)]
    calls = make_calls(Workload("serve", 1, max(DOCUMENTS), WORDS), count, seed)
    requests = []
    for size, [(query, documents)] in zip(sizes, calls, strict=True):
        chance.shuffle(documents)
        requests.append((query, documents[:size]))
    return requests


@contextmanager
def started(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    """A server, once it scores."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while ask(port, "q", ["d"])[0] != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"it didn't start: {' '.join(command)}")
            time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(
    port: int, query: str, texts: Sequence[str], connection: http.client.HTTPConnection | None = None
) -> tuple[int, list[float]]:
    """Status and scores in the texts' order; 0 for no answer."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=LEVEL_SECONDS)
    body = json.dumps({"query": query, "texts": texts, "raw_scores": True})
    try:
        connection.request("POST", "/rerank", body, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0, []
    if response.status != 200:
        return response.status, []
    return 200, [one["score"] for one in sorted(json.loads(answer), key=lambda one: int(one["index"]))]


def load(
    port: int, server: psutil.Process, clients: int, requests: Sequence[Group], expected: Sequence[list[float]]
) -> Level:
    """One level: all requests, by so many clients."""
    level = Level()
    lock = threading.Lock()
    order = itertools.count()
    end = time.monotonic() + LEVEL_SECONDS

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LEVEL_SECONDS)
        while (place := next(order)) < len(requests):
            if time.monotonic() > end:
                with lock:
                    level.unfinished += 1
                continue
            query, texts = requests[place]
            begun = time.perf_counter()
            status, scores = ask(port, query, texts, connection)
            taken = time.perf_counter() - begun
            right = status == 200 and all(abs(a - b) <= CLOSE for a, b in zip(scores, expected[place], strict=True))
            with lock:
                level.memory = max(level.memory, server.memory_info().rss / 1e6)
                if right:
                    level.latencies.append(taken)
                elif status == 200:
                    level.wrong += 1
                elif status == 429:
                    level.refused += 1
                else:
                    level.failed += 1
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    cpu = sum(server.cpu_times()[:2])
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    level.seconds = time.perf_counter() - begun
    level.cpu = sum(server.cpu_times()[:2]) - cpu
    return level


def table(levels: dict[tuple[str, int], Level]) -> str:
    """Markdown."""
    lines = [
        "| server | clients | requests/s | p50 ms | p95 ms | p99 ms | CPU s / 100 | memory MB | 429 | failed | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, clients), one in levels.items():
        times = " | ".join(f"{one.percentile(percent):,.0f}" for percent in (50, 95, 99))
        cost = one.cpu * 100 / max(len(one.latencies), 1)
        lines.append(
            f"| {name} | {clients} | {one.throughput:.1f} | {times} | {cost:.2f} | {one.memory:.0f} | {one.refused} | "
            f"{one.failed + one.unfinished} | {one.wrong} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Both servers at all levels, then ours with a queue that overflows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--model", help="a folder or name (default: the benchmark's minilm, which torch builds)")
    parser.add_argument("--requests", type=int, default=100, help="of a level and round (default 100)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds that are added up (default 2)")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    options = parser.parse_args(arguments)
    model = options.model or str(models.build(models.SIZES["minilm"]))
    requests = make_requests(options.requests)
    encoder = TextCrossEncoder(Path(model) if Path(model).exists() else model)
    expected = [encoder.rerank(query, texts) for query, texts in requests]
    tokens = sum(encoder.token_count([(query, text) for text in texts]) for query, texts in requests)
    pairs = sum(len(texts) for _, texts in requests)
    del encoder
    ports = {"ours": free_port(), "naive": free_port()}
    command = [sys.executable, "-m", "onnx_rerank_integrations", "serve", "--model", f"m={model}"]
    serve = [*command, "--request-timeout", str(LEVEL_SECONDS), "--port"]  # the naive server has no timeout either
    levels: dict[tuple[str, int], Level] = {(name, n): Level() for n in options.clients for name in ports}
    with (
        started([*serve, str(ports["ours"])], ports["ours"]) as ours,
        started([sys.executable, "-m", "benchmarks.naive_server", model, str(ports["naive"])], ports["naive"]) as naive,
    ):
        processes = {"ours": ours, "naive": naive}
        for _ in range(options.rounds):
            for (name, clients), level in levels.items():
                level.add(load(ports[name], processes[name], clients, requests, expected))
    port = free_port()
    with started([*serve, str(port), "--max-queue-tokens", str(SMALL_QUEUE)], port) as small:
        levels[f"ours, {SMALL_QUEUE:,} tokens may wait", max(options.clients)] = load(
            port, small, max(options.clients), requests, expected
        )
    print(f"{len(requests)} requests of 1 to {max(DOCUMENTS)} documents, {pairs} pairs, {tokens:,} tokens; {model}\n")
    print(table(levels))
    alone = levels["ours", min(options.clients)].throughput
    for clients in options.clients:
        ratio = levels["ours", clients].throughput / alone
        against = levels["ours", clients].throughput / levels["naive", clients].throughput
        print(f"\n{clients} clients: {ratio:.2f} times one after the other, {against:.2f} times the naive server")
    if any(level.wrong for level in levels.values()):
        raise SystemExit("wrong answers")


if __name__ == "__main__":
    main()
