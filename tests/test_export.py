"""PyTorch cross-encoders become folders that this package and its peers can load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_rerank_integrations import InputValueError, ModelNotFoundError, TextCrossEncoder, UnsupportedModelError
from tests.parity import fixtures

pytest.importorskip("torch", reason="torch isn't installed: pip install 'onnx-rerank-integrations[export]'")
pytest.importorskip("transformers", reason="transformers isn't installed")

from onnx_rerank_integrations.extras.export import export
from tests.parity.make import build


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta", "bert-3-labels", "deberta-v2", "modernbert"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A folder as transformers saves it after training."""
    folder = tmp_path_factory.mktemp("trained") / request.param
    model, tokenizer = build(request.param)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return request.param, folder


def test_an_export_scores_as_pytorch_does(trained: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = trained
    reference = fixtures.scores(name)

    result = export(str(folder), tmp_path / "out")

    assert result.largest_difference < 1e-4
    assert (tmp_path / "out" / "onnx" / "model.onnx").stat().st_size == result.size
    label = 0 if len(reference["logits"][0]) > 1 else None
    ours = TextCrossEncoder(tmp_path / "out", label=label, max_length=reference["max_length"])
    committed = TextCrossEncoder(fixtures.folder(name), label=label, max_length=reference["max_length"])
    assert ours.rerank_pairs(reference["pairs"]) == pytest.approx(committed.rerank_pairs(reference["pairs"]), abs=1e-4)


def test_peers_load_the_folder(tmp_path: Path) -> None:
    fastembed = pytest.importorskip("fastembed.rerank.cross_encoder", reason="fastembed isn't installed")
    from fastembed.common.model_description import ModelSource

    model, tokenizer = build("bert")
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    export(str(tmp_path / "trained"), tmp_path / "out")
    documents = ["the cat sat on the mat", "a stone"]

    peer = fastembed.TextCrossEncoder
    peer.add_custom_model(
        model="local/exported", sources=ModelSource(hf="local/exported"), model_file="onnx/model.onnx"
    )
    theirs = list(peer("local/exported", specific_model_path=str(tmp_path / "out")).rerank("a cat", documents))

    assert TextCrossEncoder(tmp_path / "out").rerank("a cat", documents) == pytest.approx(theirs, abs=1e-4)


def test_a_model_without_a_classification_head_is_refused(tmp_path: Path) -> None:
    model, tokenizer = build("bert")
    model.bert.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")

    with pytest.raises(UnsupportedModelError, match="BertModel, not a sequence classification model"):
        export(str(tmp_path / "bare"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_kept_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    with pytest.raises(InputValueError, match="is there already"):
        export("whatever", tmp_path / "out")
    with pytest.raises(InputValueError, match="wasn't made by this package"):
        export("whatever", tmp_path / "out", overwrite=True)
    with pytest.raises(ModelNotFoundError, match="can't be loaded by transformers"):
        export(str(tmp_path / "nothing"), tmp_path / "new")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_older_export_is_replaced_where_asked(tmp_path: Path) -> None:
    model, tokenizer = build("bert")
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    export(str(tmp_path / "trained"), tmp_path / "out")
    before = TextCrossEncoder(tmp_path / "out").rerank("a cat", ["a stone"])
    model.classifier.bias.data += 1.0
    model.save_pretrained(tmp_path / "trained")

    with pytest.raises(ModelNotFoundError, match="can't be loaded by transformers"):
        export(str(tmp_path / "nothing"), tmp_path / "out", overwrite=True)
    assert TextCrossEncoder(tmp_path / "out").rerank("a cat", ["a stone"]) == before
    export(str(tmp_path / "trained"), tmp_path / "out", overwrite=True)

    after = TextCrossEncoder(tmp_path / "out").rerank("a cat", ["a stone"])
    assert after == pytest.approx([before[0] + 1.0], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "trained"]


def test_the_configs_are_complete_for_other_loaders(tmp_path: Path) -> None:
    model, tokenizer = build("bert")
    tokenizer.model_max_length = 10**30
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")

    export(str(tmp_path / "trained"), tmp_path / "out")

    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == model.config.max_position_embeddings == 64
    assert json.loads((tmp_path / "out" / "special_tokens_map.json").read_text())["pad_token"] == "[PAD]"


def test_the_length_a_tokenizer_was_last_set_to_does_not_cut_the_exported_model(tmp_path: Path) -> None:
    model, tokenizer = build("bert")
    model.save_pretrained(tmp_path / "trained")
    tokenizer.save_pretrained(tmp_path / "trained")
    path = tmp_path / "trained" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_length": 8}))

    export(str(tmp_path / "trained"), tmp_path / "out")

    assert TextCrossEncoder(tmp_path / "out").load().max_length == tokenizer.model_max_length
