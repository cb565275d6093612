"""The committed parity fixtures are whole, small, and sharp enough to show a mistake. No torch needed.

Only onnxruntime and tokenizers are used here, not this package: what these tests say holds for the files alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Encoding, Tokenizer

from tests.parity.fixtures import folder, names, scores, session
from tests.parity.prompts import PROMPTS
from tests.parity.text import BOTH_SHORTENED

TOLERANCE = 1e-4
VISIBLE = 1e-3
"""A mistake has to move some score of the fixture by more than this."""

FILES = {"config.json", "model.onnx", "scores.json", "tokenizer.json", "tokenizer_config.json"}
SMALL = 300_000
"""Bytes a whole fixture may take."""

Logits = npt.NDArray[np.float32]


class Bare:
    """A fixture as two libraries see it: a tokenizer, a graph."""

    def __init__(self, name: str) -> None:
        self.committed = scores(name)
        self.pairs = [(query, document) for query, document in self.committed["pairs"]]
        self.expected = np.array(self.committed["logits"], dtype=np.float32)
        self.max_length: int = self.committed["max_length"]
        self.tokenizer = Tokenizer.from_file(str(folder(name) / "tokenizer.json"))
        pad_token = json.loads((folder(name) / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]
        self.pad_id: int = self.tokenizer.token_to_id(pad_token)
        self.session = session(name)
        self.inputs = {tensor.name: tensor for tensor in self.session.get_inputs()}

    def off_by(self, logits: Logits) -> float:
        """The largest difference from PyTorch's logits."""
        return float(np.abs(logits - self.expected).max())


class BarePairs(Bare):
    """The tokenizer makes a pair of query and document, the graph makes logits of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tokenizer.enable_truncation(self.max_length)

    def run(self, encodings: list[Encoding], **instead: npt.NDArray[np.int64]) -> Logits:
        """Runs equally long encodings as one batch; ``instead`` replaces an input by its name."""
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
        } | instead
        (result,) = self.session.run(None, {name: feed[name] for name in self.inputs})
        return self.head(result)

    def head(self, result: Logits) -> Logits:
        """Gives the logits from what the graph gives: here the same."""
        return result

    def one_by_one(self, pairs: list[tuple[str, str]]) -> Logits:
        return np.concatenate([self.run([self.tokenizer.encode(*pair)]) for pair in pairs])

    def padded(self) -> list[Encoding]:
        self.tokenizer.enable_padding(pad_id=self.pad_id)
        return self.tokenizer.encode_batch(self.pairs)


class BareModules(BarePairs):
    """The graph gives hidden states; Dense, LayerNorm and Dense after it make a score of the first token's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.dense, self.norm, self.score = (
            read_safetensors(folder(name) / module / "model.safetensors")
            for module in ("2_Dense", "3_LayerNorm", "4_Dense")
        )

    def head(self, result: Logits) -> Logits:
        projected = result[:, 0] @ self.dense["linear.weight"].T
        activated = 0.5 * projected * (1 + np.vectorize(math.erf)(projected / math.sqrt(2)))
        centred = activated - activated.mean(axis=1, keepdims=True)
        # PyTorch's LayerNorm adds 1e-5 to the variance.
        scaled = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5)
        normed = scaled * self.norm["norm.weight"] + self.norm["norm.bias"]
        return normed @ self.score["linear.weight"].T + self.score["linear.bias"]


def read_safetensors(path: Path) -> dict[str, Logits]:
    """Reads float32 tensors: eight bytes of header length, a JSON header, then the numbers."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    return {
        name: np.frombuffer(raw[start:], np.float32)[slice(*(end // 4 for end in entry["data_offsets"]))].reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


class BarePrompts(Bare):
    """The pair is asked in a prompt; the graph gives logits, or those of the whole vocabulary at every token."""

    def ask(self, query: str, document: str, instruction: str | None = None) -> list[int]:
        return PROMPTS[self.committed["prompt"]](
            self._ids, query, document, instruction=instruction, max_length=self.max_length
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def run(self, questions: list[list[int]], *, masked: bool = True, padding_side: str = "left") -> Logits:
        """Runs the questions as one batch, padded to the longest of them."""
        longest = max(map(len, questions))
        gaps = [longest - len(ids) for ids in questions]
        left = [gap if padding_side == "left" else 0 for gap in gaps]
        feed = {
            "input_ids": np.full((len(questions), longest), self.pad_id),
            "attention_mask": np.full((len(questions), longest), 0 if masked else 1),
        }
        for row, (ids, start) in enumerate(zip(questions, left, strict=True)):
            feed["input_ids"][row, start : start + len(ids)] = ids
            feed["attention_mask"][row, start : start + len(ids)] = 1
        feed["position_ids"] = np.maximum(feed["attention_mask"].cumsum(axis=1) - 1, 0)
        for name, tensor in self.inputs.items():
            if name.startswith("past_key_values"):
                _, heads, _, size = tensor.shape
                feed[name] = np.zeros((len(questions), heads, 0, size), dtype=np.float32)
        (logits,) = self.session.run(["logits"], {name: feed[name] for name in self.inputs})
        if answers := self.committed.get("answers"):
            return logits[:, -1, [self.tokenizer.token_to_id(answer) for answer in answers]]
        return logits


@pytest.fixture(params=names("pair") + names("modules"))
def bare(request: pytest.FixtureRequest) -> BarePairs:
    return (BareModules if request.param in names("modules") else BarePairs)(request.param)


@pytest.fixture(params=names("prompt"))
def asked(request: pytest.FixtureRequest) -> BarePrompts:
    return BarePrompts(request.param)


@pytest.mark.parametrize("name", names())
def test_a_fixture_has_every_file_a_users_folder_has_and_stays_small(name: str) -> None:
    files = {str(path.relative_to(folder(name))): path.stat().st_size for path in folder(name).rglob("*")}

    assert files.keys() >= FILES
    assert sum(files.values()) < SMALL


@pytest.mark.parametrize("name", names())
def test_the_logits_differ_clearly_between_pairs(name: str) -> None:
    assert np.std(scores(name)["logits"], axis=0).min() > 0.3


def test_the_committed_graph_gives_the_committed_logits_one_pair_at_a_time(bare: BarePairs) -> None:
    assert bare.off_by(bare.one_by_one(bare.pairs)) <= TOLERANCE


def test_an_empty_document_is_still_a_document_with_its_own_separator(bare: BarePairs) -> None:
    place = next(i for i, (query, document) in enumerate(bare.pairs) if query and not document)

    alone = bare.run([bare.tokenizer.encode(bare.pairs[place][0])])

    assert np.abs(alone - bare.expected[place]).max() > VISIBLE


def test_a_padded_batch_gives_the_same_logits(bare: BarePairs) -> None:
    assert bare.off_by(bare.run(bare.padded())) <= TOLERANCE


def test_a_lost_attention_mask_would_show(bare: BarePairs) -> None:
    batch = bare.padded()

    unmasked = bare.run(batch, attention_mask=np.ones((len(batch), len(batch[0])), dtype=np.int64))

    assert bare.off_by(unmasked) > VISIBLE


def test_wrong_token_types_would_show(bare: BarePairs) -> None:
    if "token_type_ids" not in bare.inputs:
        pytest.skip("the graph takes no token types")
    batch = bare.padded()
    typed = any(any(encoding.type_ids) for encoding in batch)

    wrong = bare.run(batch, token_type_ids=np.full((len(batch), len(batch[0])), 0 if typed else 1))

    assert bare.off_by(wrong) > VISIBLE


def test_query_and_document_changing_places_would_show(bare: BarePairs) -> None:
    turned = bare.one_by_one([(document, query) for query, document in bare.pairs])

    assert bare.off_by(turned) > VISIBLE


def test_truncation_at_the_wrong_end_would_show(bare: BarePairs) -> None:
    bare.tokenizer.enable_truncation(bare.max_length, direction="left")

    assert bare.off_by(bare.one_by_one(bare.pairs)) > VISIBLE


def test_truncating_the_document_only_would_show(bare: BarePairs) -> None:
    longest_first = bare.one_by_one([BOTH_SHORTENED])
    bare.tokenizer.enable_truncation(bare.max_length, strategy="only_second")

    document_only = bare.one_by_one([BOTH_SHORTENED])

    assert np.abs(document_only - longest_first).max() > VISIBLE


def test_the_committed_graph_gives_the_committed_logits_one_question_at_a_time(asked: BarePrompts) -> None:
    logits = np.concatenate([asked.run([asked.ask(*pair)]) for pair in asked.pairs])

    assert asked.off_by(logits) <= TOLERANCE


def test_questions_padded_on_the_left_give_the_same_logits(asked: BarePrompts) -> None:
    assert asked.off_by(asked.run([asked.ask(*pair) for pair in asked.pairs])) <= TOLERANCE


def test_another_instruction_gives_the_logits_committed_for_it(asked: BarePrompts) -> None:
    instruction = asked.committed["instruction"]

    logits = asked.run([asked.ask(*pair, instruction=instruction["text"]) for pair in asked.pairs])

    np.testing.assert_allclose(logits, instruction["logits"], rtol=0, atol=TOLERANCE)
    assert asked.off_by(logits) > VISIBLE


def test_the_score_is_how_much_likelier_the_second_answer_is_than_the_first(asked: BarePrompts) -> None:
    if "answers" not in asked.committed:
        pytest.skip("the graph gives the score itself")

    np.testing.assert_allclose(asked.committed["scores"], asked.expected[:, 1] - asked.expected[:, 0], atol=1e-5)


def test_a_lost_mask_on_a_question_would_show(asked: BarePrompts) -> None:
    unmasked = asked.run([asked.ask(*pair) for pair in asked.pairs], masked=False)

    assert asked.off_by(unmasked) > VISIBLE


def test_padding_a_question_on_the_right_would_show_where_the_last_token_answers(asked: BarePrompts) -> None:
    logits = asked.run([asked.ask(*pair) for pair in asked.pairs], padding_side="right")

    if "answers" in asked.committed:
        assert asked.off_by(logits) > VISIBLE
    else:
        # The sequence classifier looks for the last token that isn't padding.
        assert asked.off_by(logits) <= TOLERANCE


def test_a_question_whose_end_is_cut_would_show(asked: BarePrompts) -> None:
    asked.max_length, fits = 10_000, asked.max_length

    cut = asked.run([asked.ask(*pair)[:fits] for pair in asked.pairs])

    assert asked.off_by(cut) > VISIBLE
