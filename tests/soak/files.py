"""Model folders that were damaged or forged: each loads, or is refused with an error of ours, in bounded memory.

A child opens each folder as a user would, optimized copy included, and scores two pairs. It may give finite scores or
one of this package's errors. A crash, a hang, another exception or a word on stdout is a failure.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.soak import WHOLE

PARITY = Path(__file__).parents[1] / "parity"
MODELS = ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert", "ettin", "bert-3-labels", "qwen3-reranker")
MEMORY = 6 << 30
SECONDS = 250.0
LEAST, PROMISED = 150, 5000

CHILD = """
import json, logging, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)  # what is printed, looked at by the parent
logging.disable(logging.CRITICAL)
import onnx_rerank_integrations.core.graphs.trials  # imported once
from onnx_rerank_integrations import RerankError, TextCrossEncoder
for line in sys.stdin:
    try:
        encoder = TextCrossEncoder(line.strip(), threads=1)
        scores = encoder.rerank("what is a bee?", ["Bees live on honey.", "soup " * 40])
        assert len(scores) == 2 and all(abs(score) < float("inf") for score in scores), scores
        answer = "scores"
    except RerankError as error:
        answer = "typed errors"
    except BaseException as error:
        import traceback
        answer = "foreign " + traceback.format_exc()
    print(json.dumps(answer), file=out, flush=True)
"""

Mutation = Callable[[random.Random, Path], None]


def run(seconds: float, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    until, least = time.monotonic() + seconds, PROMISED if seconds >= WHOLE else LEAST
    with tempfile.TemporaryDirectory() as work:
        child = Child(Path(work))
        try:
            while counts["inputs"] < least or time.monotonic() < until:
                counts["inputs"] += 1
                folder = Path(work) / "model"
                told = mutated(rng, folder)
                answer = child.open(folder)
                if answer not in ("scores", "typed errors"):
                    kept = Path(tempfile.mkdtemp(prefix="onnx-rerank-soak-")) / "model"
                    shutil.copytree(folder, kept, symlinks=True)
                    raise AssertionError(f"{told}, kept in {kept}: {answer}")
                counts[answer] += 1
                counts[told.split(":")[0]] += 1
            assert child.printed() == "", child.printed()
        finally:
            child.stop()
    return dict(counts)


class Child:
    """A process that opens one folder after the other, started anew after a crash."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._printed, self._log = work / "printed", work / "log"
        self._process: subprocess.Popen[str] | None = None

    def open(self, folder: Path) -> str:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return f"no answer in {SECONDS:.0f} s"
        line = process.stdout.readline()
        if line:
            return str(json.loads(line))
        code = process.wait()
        self._process = None
        name = signal.Signals(-code).name if code < 0 else str(code)
        return f"the child died with {name}: {self._log.read_text(errors='replace')[-2000:]}"

    def printed(self) -> str:
        """All that was written to stdout."""
        return self._printed.read_text(errors="replace") if self._printed.exists() else ""

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "ONNX_RERANK_CACHE": str(self._work / "cache"),
            "HF_HUB_OFFLINE": "1",
            "RUST_BACKTRACE": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(self._printed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env=environment,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )
        return self._process


def mutated(rng: random.Random, folder: Path) -> str:
    """A fresh copy of a model with something wrong in it; says what, its kind before the colon."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PARITY / rng.choice(MODELS), folder)
    os.remove(folder / "scores.json")
    if rng.random() < 0.2:
        with_external_data(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice([*files, folder / "tokenizer.json", folder / "model.onnx", folder / "model.onnx"])
    if path.suffix == ".json" and rng.random() < 0.7:
        kind, change = "json", rng.choice(JSON)
    elif path.suffix == ".onnx" and rng.random() < 0.4:
        kind, change = "graph", rng.choice(GRAPHS)
    else:
        kind, change = "bytes", rng.choice(BYTES)
    state = rng.getstate()[1][:2]
    try:
        change(rng, path)
    except (ValueError, IndexError, KeyError):
        path.write_bytes(b"")
    return f"{kind} mutations: {change.__name__} of {path.relative_to(folder)} ({state})"


def with_external_data(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=64)


# --- any file ---------------------------------------------------------------------------------------------------------


def bits(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 20))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def noise(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    length = rng.choice((4, 100, 5000))
    data[start : start + length] = rng.randbytes(length)
    path.write_bytes(data)


def truncation(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def doubled(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    start = rng.randrange(len(data))
    path.write_bytes(data[:start] + data[start : start + 1000] + data[start:])


def another_file(rng: random.Random, path: Path) -> None:
    path.write_bytes(
        rng.choice(
            [
                b"",
                b"\0" * 10_000,
                b"PK\x03\x04" + rng.randbytes(500),
                b"\x1f\x8b" + rng.randbytes(500),
                b"\x80\x02}q\0.",
                b"<!doctype html><html><body>Please log in</body></html>",
                b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90405214\n",
                b"GGUF" + rng.randbytes(200),
                rng.randbytes(3000),
                "é".encode("latin-1") * 50,
                b"\xef\xbb\xbf{}",
            ]
        )
    )


def missing(rng: random.Random, path: Path) -> None:
    path.unlink()


def folder_in_its_place(rng: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_elsewhere(rng: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["/dev/null", "/etc/passwd", "/nowhere", str(path), "/dev/zero", "."]))


BYTES: list[Mutation] = [
    bits, bits, bits, noise, noise, truncation, truncation, doubled, another_file, missing, folder_in_its_place,
    link_elsewhere,
]  # fmt: skip


# --- JSON -------------------------------------------------------------------------------------------------------------

ODD_VALUES: list[object] = [
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**30, -(2**40), 0.5, 1e300, float("nan"), float("inf"), "", "x",
    "[CLS]", "\ud800", "\0", "../../etc/passwd", "a" * 10_000, [], [None], [1, 2], {}, {"content": 3}, {"x": {}},
]  # fmt: skip


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value in a JSON document, not further than 40 entries into a list or a vocabulary."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in list(value)[:40]:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 40)):
            found += places(value[index], (*path, index))
    return found


def edited(rng: random.Random, path: Path, edit: Callable[[object, object], None]) -> None:
    document = json.loads(path.read_text())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = places(document)
        if not found:
            break
        *way, last = rng.choice(found)
        parent = document
        for step in way:
            parent = parent[step]
        edit(parent, last)
    path.write_text(json.dumps(document))


def value_replaced(rng: random.Random, path: Path) -> None:
    def edit(parent, key) -> None:  # type: ignore[no-untyped-def]
        parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))

    edited(rng, path, edit)


def value_deleted(rng: random.Random, path: Path) -> None:
    def edit(parent, key) -> None:  # type: ignore[no-untyped-def]
        del parent[key]

    edited(rng, path, edit)


def value_moved(rng: random.Random, path: Path) -> None:
    def edit(parent, key) -> None:  # type: ignore[no-untyped-def]
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"value": parent[key]}

    edited(rng, path, edit)


def number_changed(rng: random.Random, path: Path) -> None:
    def edit(parent, key) -> None:  # type: ignore[no-untyped-def]
        if isinstance(parent[key], int | float):
            parent[key] = rng.choice([-parent[key], parent[key] * 1000, parent[key] + 1, 10**9, 0, str(parent[key])])
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))

    edited(rng, path, edit)


def nested_deeply(rng: random.Random, path: Path) -> None:
    depth = rng.choice((200, 5000, 200_000))
    path.write_text(rng.choice(["[" * depth, '{"a":' * depth, "[" * depth + "]" * depth]))


def another_document(rng: random.Random, path: Path) -> None:
    path.write_text(json.dumps(rng.choice(ODD_VALUES)))


def hostile_tokenizer(rng: random.Random, path: Path) -> None:
    """Whatever file it is, the tokenizer: normalizers and patterns that grow, or ids beyond the graph's."""
    tokenizer = path.with_name("tokenizer.json")
    if not tokenizer.is_file():
        return
    document = json.loads(tokenizer.read_text())
    tenfold = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    document |= rng.choice(
        [
            {"normalizer": {"type": "Sequence", "normalizers": [tenfold] * rng.choice((2, 4, 5))}},
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|aa)+b"}, "content": "x"}},
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": False}},
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
            {"post_processor": {"type": "BertProcessing", "sep": ["x", 10**9], "cls": ["y", 4 * 10**9]}},
            {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}},
            {"post_processor": None},
            {"model": {"type": "WordLevel", "vocab": {"a": 10**9}, "unk_token": "a"}},
            {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]"}},
            {"model": {"type": "Unigram", "vocab": [["a", float("nan")]], "unk_id": 0}},
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}},
            {"added_tokens": []},
            {"truncation": {"direction": "Left", "max_length": 1, "strategy": "OnlyFirst", "stride": 5}},
            {"padding": {"strategy": {"Fixed": 10**6}, "direction": "Left", "pad_id": 0, "pad_type_id": 0}},
        ]
    )
    tokenizer.write_text(json.dumps(document))


JSON: list[Mutation] = [
    value_replaced, value_replaced, value_replaced, value_deleted, value_moved, number_changed, nested_deeply,
    another_document, hostile_tokenizer, hostile_tokenizer,
]  # fmt: skip


# --- graphs -----------------------------------------------------------------------------------------------------------


def graph_edited(path: Path, edit: Callable[..., None]) -> None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def huge_dimensions(rng: random.Random, path: Path) -> None:
    def edit(model) -> None:  # type: ignore[no-untyped-def]
        tensor = rng.choice(model.graph.initializer)
        if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((-1, 0, 2**31, 2**40, 2**62, -(2**62)))

    graph_edited(path, edit)


def data_elsewhere(rng: random.Random, path: Path) -> None:
    """External data out of the folder, beyond the file's end, or in a device."""

    def edit(model) -> None:  # type: ignore[no-untyped-def]
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = tensor.EXTERNAL
        values = {
            "location": rng.choice(
                [
                    "../../etc/passwd",
                    "/etc/passwd",
                    "/dev/zero",
                    "model.onnx",
                    "config.json",
                    "nothing",
                    "",
                    ".",
                    "a\0b",
                ]
            ),
            "offset": str(rng.choice((0, -1, 10**18, "x"))),
            "length": str(rng.choice((0, 4, -1, 10**18, "", "x", "9" * 5000))),
        }
        for key, value in values.items():
            if rng.random() < 0.8:
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value

    graph_edited(path, edit)


def node_changed(rng: random.Random, path: Path) -> None:
    def edit(model) -> None:  # type: ignore[no-untyped-def]
        node = rng.choice(model.graph.node)
        what = rng.randrange(6)
        if what == 0:
            node.op_type = rng.choice(["Identity", "Loop", "If", "NoSuchOperator", "Shape", "Cast", ""])
        elif what == 1:
            node.domain = rng.choice(["com.evil", "ai.onnx.ml", ""])
        elif what == 2 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(["", "nowhere", node.output[0]])
        elif what == 3:
            model.graph.node.remove(node)
        elif what == 4:
            del node.attribute[:]
        elif node.output:
            node.output[0] = rng.choice(["", "logits", "input_ids"])

    graph_edited(path, edit)


def port_changed(rng: random.Random, path: Path) -> None:
    def edit(model) -> None:  # type: ignore[no-untyped-def]
        port = rng.choice([*model.graph.input, *model.graph.output])
        what = rng.randrange(5)
        if what == 0:
            port.name = rng.choice(["x", "", "pixel_values", "logits"])
        elif what == 1:
            port.type.tensor_type.elem_type = rng.choice((0, 1, 7, 8, 9, 10, 99))
        elif what == 2:
            port.type.tensor_type.ClearField("shape")
        elif what == 3:
            port.type.tensor_type.shape.dim.add().dim_value = rng.choice((0, 1, -5, 2**40))
        elif port.type.tensor_type.shape.dim:
            port.type.tensor_type.shape.dim[0].dim_value = rng.choice((0, 1, 3, 2**33))

    graph_edited(path, edit)


def versions_changed(rng: random.Random, path: Path) -> None:
    def edit(model) -> None:  # type: ignore[no-untyped-def]
        if rng.random() < 0.5:
            model.ir_version = rng.choice((0, 1, 3, 99, 2**40))
        else:
            model.opset_import[0].version = rng.choice((0, 1, 7, 12, 99, -1))

    graph_edited(path, edit)


GRAPHS: list[Mutation] = [huge_dimensions, data_elsewhere, data_elsewhere, node_changed, node_changed, port_changed,
                          versions_changed]  # fmt: skip
