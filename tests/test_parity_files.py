"""The committed parity fixtures are whole, small, and sharp enough to show a mistake. No torch needed.

Only onnxruntime and tokenizers are used here, not this package: what these tests say holds for the files alone.
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Encoding, Tokenizer

from tests.parity.fixtures import folder, names, scores, session
from tests.parity.text import BOTH_SHORTENED

TOLERANCE = 1e-4
VISIBLE = 1e-3
"""A mistake has to move some score of the fixture by more than this."""

FILES = {"config.json", "model.onnx", "scores.json", "tokenizer.json", "tokenizer_config.json"}
SMALL = 300_000
"""Bytes a whole fixture may take."""

Logits = npt.NDArray[np.float32]


class Bare:
    """A fixture as two libraries see it: a tokenizer that makes pairs, a graph that makes logits."""

    def __init__(self, name: str) -> None:
        committed = scores(name)
        self.pairs = [(query, document) for query, document in committed["pairs"]]
        self.expected = np.array(committed["logits"], dtype=np.float32)
        self.max_length: int = committed["max_length"]
        self.tokenizer = Tokenizer.from_file(str(folder(name) / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.max_length)
        pad_token = json.loads((folder(name) / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]
        self.pad_id = self.tokenizer.token_to_id(pad_token)
        self.session = session(name)
        self.inputs = {tensor.name for tensor in self.session.get_inputs()}

    def run(self, encodings: list[Encoding], **instead: npt.NDArray[np.int64]) -> Logits:
        """Runs equally long encodings as one batch; ``instead`` replaces an input by its name."""
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
        } | instead
        (logits,) = self.session.run(["logits"], {name: feed[name] for name in self.inputs})
        return logits

    def one_by_one(self, pairs: list[tuple[str, str]]) -> Logits:
        return np.concatenate([self.run([self.tokenizer.encode(*pair)]) for pair in pairs])

    def padded(self) -> list[Encoding]:
        self.tokenizer.enable_padding(pad_id=self.pad_id)
        return self.tokenizer.encode_batch(self.pairs)

    def off_by(self, logits: Logits) -> float:
        """The largest difference from PyTorch's logits."""
        return float(np.abs(logits - self.expected).max())


@pytest.fixture(params=names())
def bare(request: pytest.FixtureRequest) -> Bare:
    return Bare(request.param)


@pytest.mark.parametrize("name", names())
def test_a_fixture_has_every_file_a_users_folder_has_and_stays_small(name: str) -> None:
    files = {str(path.relative_to(folder(name))): path.stat().st_size for path in folder(name).rglob("*.*")}

    assert files.keys() >= FILES
    assert sum(files.values()) < SMALL


def test_the_committed_graph_gives_the_committed_logits_one_pair_at_a_time(bare: Bare) -> None:
    assert bare.off_by(bare.one_by_one(bare.pairs)) <= TOLERANCE


def test_a_padded_batch_gives_the_same_logits(bare: Bare) -> None:
    assert bare.off_by(bare.run(bare.padded())) <= TOLERANCE


def test_the_logits_differ_clearly_between_pairs(bare: Bare) -> None:
    assert bare.expected.std(axis=0).min() > 0.3


def test_a_lost_attention_mask_would_show(bare: Bare) -> None:
    batch = bare.padded()

    unmasked = bare.run(batch, attention_mask=np.ones((len(batch), len(batch[0])), dtype=np.int64))

    assert bare.off_by(unmasked) > VISIBLE


def test_wrong_token_types_would_show(bare: Bare) -> None:
    if "token_type_ids" not in bare.inputs:
        pytest.skip("the graph takes no token types")
    batch = bare.padded()
    typed = any(any(encoding.type_ids) for encoding in batch)

    wrong = bare.run(batch, token_type_ids=np.full((len(batch), len(batch[0])), 0 if typed else 1))

    assert bare.off_by(wrong) > VISIBLE


def test_query_and_document_changing_places_would_show(bare: Bare) -> None:
    turned = bare.one_by_one([(document, query) for query, document in bare.pairs])

    assert bare.off_by(turned) > VISIBLE


def test_truncation_at_the_wrong_end_would_show(bare: Bare) -> None:
    bare.tokenizer.enable_truncation(bare.max_length, direction="left")

    assert bare.off_by(bare.one_by_one(bare.pairs)) > VISIBLE


def test_truncating_the_document_only_would_show(bare: Bare) -> None:
    longest_first = bare.one_by_one([BOTH_SHORTENED])
    bare.tokenizer.enable_truncation(bare.max_length, strategy="only_second")

    document_only = bare.one_by_one([BOTH_SHORTENED])

    assert np.abs(document_only - longest_first).max() > VISIBLE
