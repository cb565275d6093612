"""Forks, threads, interrupts and the end of the process: nothing hangs, and nothing is printed on stdout."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import onnx_rerank_integrations
from onnx_rerank_integrations import InvalidModelError, ScoreError, TextCrossEncoder
from onnx_rerank_integrations.core.engine import forks
from onnx_rerank_integrations.core.engine.forks import Lock, Once, undivided
from onnx_rerank_integrations.core.engine.onnxruntime import InferenceSession
from onnx_rerank_integrations.core.tokens.texts import panics_as
from tests.parity import fixtures
from tests.toy import make_toy, toy_score

PACKAGE = Path(onnx_rerank_integrations.__file__).parent

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def ends_in_child(work: Callable[[], object], patience: float = 120.0) -> bool:
    """Whether a forked child comes to the end of the work; where it doesn't, it tells why on stderr."""
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(patience - 5, file=2)
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child of pytest must not go on
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(code: str, *arguments: str, patience: float = 250.0) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a user's: with CI set, onnxruntime's telemetry would be off anyway."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=patience, env=environment
    )


def test_each_lock_of_the_package_is_made_anew_in_a_forked_child() -> None:
    kept = re.compile(r"\b(R?Lock|Condition|Semaphore|cached_property)\(|@cached_property")
    allowed = {"core/engine/forks.py"}

    found = {
        str(path.relative_to(PACKAGE))
        for folder in ("core", "")
        for path in (PACKAGE / folder).glob("**/*.py" if folder else "*.py")
        if any(kept.search(line) and "= Lock()" not in line for line in path.read_text(encoding="utf-8").splitlines())
    }

    assert found == allowed


@needs_fork
def test_a_lock_that_another_thread_holds_is_free_in_a_forked_child() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert ends_in_child(lock.__enter__, patience=30)
    finally:
        done.set()
        holder.join()


@needs_fork
def test_a_fork_waits_for_what_another_thread_must_finish() -> None:
    inside, finished = threading.Event(), threading.Event()

    def open_a_file() -> None:
        with undivided(), undivided():
            inside.set()
            time.sleep(0.2)
            finished.set()

    thread = threading.Thread(target=open_a_file)
    thread.start()
    inside.wait()

    assert ends_in_child(lambda: None)
    assert finished.is_set()
    thread.join()
    with undivided():
        assert ends_in_child(undivided().__enter__), "the thread that forks doesn't wait for itself"


@needs_fork
def test_a_fork_doesnt_wait_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 0.05)
    inside, done = threading.Event(), threading.Event()

    def hang() -> None:
        with undivided():
            inside.set()
            done.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    inside.wait()
    try:
        assert ends_in_child(lambda: None)
        assert "the child may hang" in caplog.text
    finally:
        done.set()
        thread.join()


FORKS_BESIDE_A_POOL = """
import os, sys, threading, time
from onnx_rerank_integrations.core.engine import forks

def work():
    from concurrent.futures import ThreadPoolExecutor

    with forks.undivided():
        inside.set()
        while not forks._forking:
            time.sleep(0.001)
        ThreadPoolExecutor(1).submit(int).result()  # as openvino does while it is imported

inside = threading.Event()
threading.Thread(target=work).start()
inside.wait()
child = os.fork()
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_a_fork_waits_for_a_thread_that_starts_others() -> None:
    done = run(FORKS_BESIDE_A_POOL)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


FORKS_WHILE_LOADING = """
import os, sys, threading, time
from onnx_rerank_integrations import TextCrossEncoder

encoder = TextCrossEncoder(sys.argv[1], lazy_load=True)
thread = threading.Thread(target=encoder.rerank, args=("q", ["a", "b"]))
thread.start()
time.sleep(float(sys.argv[2]))
child = os.fork()
scores = encoder.rerank("q", ["a", "b"])
if child == 0:
    os._exit(0 if len(scores) == 2 else 1)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.2])
def test_a_fork_while_another_thread_imports_and_opens_the_model(after: float) -> None:
    assert run(FORKS_WHILE_LOADING, str(fixtures.folder("bert")), str(after)).returncode == 0


@needs_fork
def test_a_fork_while_another_thread_opens_a_large_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opening = InferenceSession._open, threading.Event()

    def slow(self: InferenceSession, threads: int) -> object:
        opening.set()
        time.sleep(0.3)
        return real(self, threads)

    monkeypatch.setattr(InferenceSession, "_open", slow)
    encoder = TextCrossEncoder(make_toy(tmp_path), lazy_load=True)
    thread = threading.Thread(target=encoder.load)
    thread.start()
    opening.wait()

    def score() -> None:
        assert encoder.rerank("q", ["a b"]) == pytest.approx([toy_score("q", "a b")])

    assert ends_in_child(score)
    thread.join()


@needs_fork
@pytest.mark.parametrize("cache", [None, 50, "scores.sqlite"])
def test_forks_beside_busy_threads(cache: int | str | None, tmp_path: Path) -> None:
    encoder = TextCrossEncoder("lexical", score_cache=str(tmp_path / cache) if isinstance(cache, str) else cache)
    documents = [f"bees live on honey number {i}" for i in range(60)]
    expected = encoder.rerank("what is a bee?", documents)
    over = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            encoder.rerank(f"query {turn} of {number}", documents)

    def score() -> None:
        assert encoder.rerank("what is a bee?", documents) == pytest.approx(expected, abs=1e-6)
        encoder.rerank("another", documents)

    with ThreadPoolExecutor(3) as pool:
        for number in range(3):
            pool.submit(work, number)
        try:
            assert all(ends_in_child(score) for _ in range(12))
        finally:
            over.set()
    if isinstance(cache, str):
        assert sqlite3.connect(tmp_path / cache).execute("PRAGMA integrity_check").fetchone() == ("ok",)


OPENVINO_FORKS = """
import os, sys
from onnx_rerank_integrations import ProviderError, TextCrossEncoder

encoder = TextCrossEncoder(sys.argv[1], backend="openvino")
encoder.rerank("q", ["a"])
child = os.fork()
if child == 0:
    for use in (lambda: encoder.rerank("q", ["a"]), lambda: TextCrossEncoder(sys.argv[1], backend="openvino")):
        try:
            use()
        except ProviderError as error:
            assert "spawn" in str(error)
        else:
            os._exit(1)
    assert TextCrossEncoder(sys.argv[1]).rerank("q", ["a"])
    del encoder, use
    sys.exit(0)
encoder.rerank("q", ["a"])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@needs_fork
def test_openvino_says_at_once_that_it_doesnt_survive_a_fork() -> None:
    pytest.importorskip("openvino", reason="openvino isn't installed: pip install '...[openvino]'")

    done = run(OPENVINO_FORKS, str(fixtures.folder("bert")))

    assert done.returncode == 0, done.stderr


def test_a_value_is_made_once_and_a_failure_is_shared_by_those_who_wait() -> None:
    once: Once[int] = Once()
    tried: list[int] = []
    together = threading.Barrier(6)

    def fail() -> int:
        tried.append(1)
        while len(once._making._condition._waiters) < 5:  # type: ignore[union-attr, attr-defined]
            time.sleep(0.001)
        raise OSError("no answer")

    def ask(_: int) -> str:
        together.wait()
        try:
            return str(once(fail))
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == ["no answer"] * 6
    assert tried == [1]
    assert once.made is None
    assert once(lambda: 7) == once(fail) == once.made == 7


def test_an_interrupt_of_the_thread_that_makes_it_is_not_the_others() -> None:
    once: Once[int] = Once()
    begun = threading.Event()

    def interrupted() -> int:
        begun.set()
        time.sleep(0.1)
        raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            once(interrupted)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()

    assert once(lambda: 3) == 3
    thread.join()


ENDS_IN_MID_CALL = """
import sys, threading, time
from onnx_rerank_integrations import TextCrossEncoder

encoder = TextCrossEncoder(sys.argv[1], backend=sys.argv[2])
documents = [f"bees live on honey number {i} " * 8 for i in range(200)]

def work(turn=0):
    while True:
        turn += 1
        encoder.rerank(f"query {turn}", documents)

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_process_ends_with_daemon_threads_in_mid_call(backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino isn't installed: pip install '...[openvino]'")

    for _ in range(3):  # without the wait for them, about every second one was aborted
        done = run(ENDS_IN_MID_CALL, str(fixtures.folder("bert")), backend)
        assert (done.returncode, done.stdout) == (0, "")
        assert "terminate called" not in done.stderr


INTERRUPTED = """
import signal, sys, threading, time
from onnx_rerank_integrations import TextCrossEncoder

encoder = TextCrossEncoder(sys.argv[1])
documents = [f"bees live on honey number {i} " * 20 for i in range(1000)]
expected = encoder.rerank("a bee", documents[:5])
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in background
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
caught = 0
for sent in [signal.SIGINT, signal.SIGTERM] * 3:
    try:
        threading.Timer(0.1, signal.raise_signal, [sent]).start()
        while True:
            encoder.rerank("a query", documents)
    except (KeyboardInterrupt, SystemExit):
        caught += 1
    assert max(abs(a - b) for a, b in zip(encoder.rerank("a bee", documents[:5]), expected)) < 1e-6
assert caught == 6
"""


def test_an_interrupted_call_leaves_the_encoder_usable() -> None:
    done = run(INTERRUPTED, str(fixtures.folder("bert")))

    assert done.returncode == 0, done.stderr


DAMAGED = """
import sys
from onnx_rerank_integrations import InvalidModelError, ScoreError, TextCrossEncoder

try:
    TextCrossEncoder(sys.argv[1], backend=sys.argv[2])
except InvalidModelError:
    sys.exit(0)
sys.exit(1)
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_damaged_model_prints_nothing(backend: str, tmp_path: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino isn't installed: pip install '...[openvino]'")
    onnx = pytest.importorskip("onnx")
    folder = make_toy(tmp_path)
    graph = folder / "model.onnx"
    name = onnx.load(graph).graph.initializer[0].name.encode()
    graph.write_bytes(graph.read_bytes().replace(name, b"\xf3" + name[1:], 1))

    done = run(DAMAGED, str(folder), backend)

    assert (done.returncode, done.stdout) == (0, "")


def test_eight_threads_get_what_one_gets() -> None:
    encoder = TextCrossEncoder(fixtures.folder("bert"))
    calls = [(f"query {i}", [f"{word} {i} " * (1 + i % 7) for word in ("rain", "salt", "stone")]) for i in range(80)]
    expected = [encoder.rerank(query, documents) for query, documents in calls]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: encoder.rerank(*call), calls))

    assert np.abs(np.array(found) - np.array(expected)).max() < 1e-6


def test_a_failed_load_can_be_tried_again(tmp_path: Path) -> None:
    encoder = TextCrossEncoder(tmp_path / "toy", lazy_load=True)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "model.onnx").write_bytes(b"")
    with pytest.raises((InvalidModelError, FileNotFoundError)):
        encoder.rerank("q", ["a"])

    make_toy(tmp_path / "toy")

    assert encoder.rerank("q", ["a b"]) == pytest.approx([toy_score("q", "a b")])


def test_a_panic_of_the_tokenizers_library_is_one_of_our_errors(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = make_toy(tmp_path) / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    endless = tokenizers.Regex(r"(?:a|a)*\d")  # the library panics when a match takes more steps than it allows
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(endless, "isolated")
    tokenizer.save(str(path))
    encoder = TextCrossEncoder(tmp_path)

    for call in (encoder.rerank, lambda query, texts: encoder.token_count([(query, text) for text in texts])):
        with pytest.raises(ScoreError, match=r"PanicException.*2 pairs whose longest text has 60 characters"):
            call("q", ["b", "a" * 60])
    assert len(encoder.rerank("q", ["b"])) == 1


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit, MemoryError, ValueError])
def test_other_errors_pass_as_they_are(ends: type[BaseException]) -> None:
    with pytest.raises(ends), panics_as(ScoreError):
        raise ends
    with pytest.raises(ScoreError, match="WordPiece error"), panics_as(ScoreError):
        raise Exception("WordPiece error")
