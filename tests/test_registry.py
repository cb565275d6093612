"""The supported models as data."""

from __future__ import annotations

import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError
from onnx_rerank_integrations.core.model import registry
from onnx_rerank_integrations.door import RerankOptions
from tests.toy import make_toy

# Facts of FastEmbed 0.9.1, rerank/cross_encoder/onnx_text_cross_encoder.py:
# name, source, file, license, size_in_GB, additional files.
FASTEMBED_ROWS = [
    ("Xenova/ms-marco-MiniLM-L-6-v2", "Xenova/ms-marco-MiniLM-L-6-v2", "onnx/model.onnx", "apache-2.0", 0.08, []),
    ("Xenova/ms-marco-MiniLM-L-12-v2", "Xenova/ms-marco-MiniLM-L-12-v2", "onnx/model.onnx", "apache-2.0", 0.12, []),
    ("BAAI/bge-reranker-base", "BAAI/bge-reranker-base", "onnx/model.onnx", "mit", 1.04, []),
    (
        "BAAI/bge-reranker-v2-m3",
        "onnx-community/bge-reranker-v2-m3-ONNX",
        "onnx/model.onnx",
        "apache-2.0",
        2.27,
        ["onnx/model.onnx_data"],
    ),
    (
        "BAAI/bge-reranker-v2-m3-int8",
        "onnx-community/bge-reranker-v2-m3-ONNX",
        "onnx/model_int8.onnx",
        "apache-2.0",
        0.57,
        [],
    ),
    ("jinaai/jina-reranker-v1-tiny-en", "jinaai/jina-reranker-v1-tiny-en", "onnx/model.onnx", "apache-2.0", 0.13, []),
    ("jinaai/jina-reranker-v1-turbo-en", "jinaai/jina-reranker-v1-turbo-en", "onnx/model.onnx", "apache-2.0", 0.15, []),
    (
        "jinaai/jina-reranker-v2-base-multilingual",
        "jinaai/jina-reranker-v2-base-multilingual",
        "onnx/model.onnx",
        "cc-by-nc-4.0",
        1.11,
        [],
    ),
]


@pytest.mark.parametrize("row", FASTEMBED_ROWS, ids=lambda row: row[0])
def test_every_model_of_fastembed_is_listed_with_its_source_file_license_and_size(row: tuple[object, ...]) -> None:
    listed = {model["model"]: model for model in registry.list_supported_models()}

    name, source, model_file, license, size, additional_files = row
    assert listed[name]["sources"] == {"hf": source}
    assert listed[name]["model_file"] == model_file
    assert listed[name]["license"] == license
    assert listed[name]["size_in_GB"] == size
    assert listed[name]["additional_files"] == additional_files


def test_the_default_model_and_the_embedded_one_are_listed() -> None:
    names = [model["model"] for model in registry.list_supported_models()]

    assert registry.DEFAULT_MODEL in names
    assert registry.EMBEDDED in names
    assert len(names) == len({name.lower() for name in names})


@pytest.mark.parametrize(
    "name",
    [
        "BAAI/bge-reranker-large",
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        "cross-encoder/stsb-roberta-base",
        "mixedbread-ai/mxbai-rerank-base-v1",
        "Alibaba-NLP/gte-reranker-modernbert-base",
    ],
)
def test_models_that_fastembed_refuses_are_known_too(name: str) -> None:
    description = registry.find(name)

    assert description is not None
    assert description.sources["hf"].count("/") == 1


def test_the_list_can_be_written_as_json_and_belongs_to_the_caller() -> None:
    models = registry.list_supported_models()
    json.dumps(models)

    models[0]["sources"]["hf"] = "somewhere/else"

    assert registry.list_supported_models()[0]["sources"]["hf"] == "Xenova/ms-marco-MiniLM-L-6-v2"


def test_facts_are_sane_where_they_are_known_and_none_where_not() -> None:
    for model in registry.list_supported_models():
        assert model["license"] is None or model["license"] == model["license"].lower()
        assert model["size_in_GB"] is None or 0.0001 < model["size_in_GB"] < 10
        assert model["max_length"] in (None, 512, 1024, 8192)
        assert model["activation"] in (None, "identity", "sigmoid")
        assert model["kind"] in ("classifier", "causal")
        assert model["model_file"].endswith(".onnx")


def test_a_name_is_found_in_any_case() -> None:
    found = registry.find("xenova/MS-MARCO-minilm-l-6-V2")

    assert found is not None
    assert found.model == "Xenova/ms-marco-MiniLM-L-6-v2"
    assert registry.find("no/such-model") is None


def test_the_environment_variable_changes_the_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNX_RERANK_MODEL", raising=False)
    assert registry.default_model() == "Xenova/ms-marco-MiniLM-L-6-v2"

    monkeypatch.setenv("ONNX_RERANK_MODEL", " embedded ")
    assert registry.default_model() == "embedded"

    monkeypatch.setenv("ONNX_RERANK_MODEL", "")
    assert registry.default_model() == "Xenova/ms-marco-MiniLM-L-6-v2"


@pytest.mark.parametrize("sources", ["me/my-reranker", {"hf": "me/my-reranker"}])
def test_a_custom_model_is_listed_last_and_found(sources: str | dict[str, str]) -> None:
    registry.add_custom_model(
        "my-reranker",
        sources,
        model_file="model.onnx",
        description="Mine.",
        license="mit",
        size_in_gb=0.5,
        additional_files=["model.onnx_data"],
    )

    assert registry.list_supported_models()[-1] == {
        "model": "my-reranker",
        "sources": {"hf": "me/my-reranker"},
        "model_file": "model.onnx",
        "description": "Mine.",
        "license": "mit",
        "size_in_GB": 0.5,
        "additional_files": ["model.onnx_data"],
        "languages": None,
        "max_length": None,
        "activation": None,
        "kind": "classifier",
    }
    assert registry.find("MY-RERANKER") is not None


def test_unknown_facts_of_a_custom_model_are_none() -> None:
    registry.add_custom_model("my-reranker", "me/my-reranker")

    added = registry.find("my-reranker")
    assert added is not None
    assert added.license is None
    assert added.size_in_GB is None


def test_a_taken_name_is_refused_in_any_case() -> None:
    with pytest.raises(InputValueError, match="taken by the supported model 'BAAI/bge-reranker-base'"):
        registry.add_custom_model("baai/BGE-reranker-base", "me/mine")
    with pytest.raises(InputValueError, match="taken by the supported model 'embedded'"):
        registry.add_custom_model("Embedded", "me/mine")


@pytest.mark.parametrize(
    ("model", "sources", "error", "message"),
    [
        ("", "me/mine", InputValueError, "must not be empty"),
        (7, "me/mine", InputTypeError, "model must be a str, got int"),
        ("mine", {"url": "https://example.org/model.tar.gz"}, InputValueError, "must be a hub id"),
        ("mine", "", InputValueError, "must be a hub id"),
        ("mine", 7, InputTypeError, "got int"),
    ],
)
def test_a_custom_model_without_name_or_hub_id_is_refused(
    model: str, sources: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        registry.add_custom_model(model, sources)


class _SlowDict(dict[str, object]):
    """Gives other threads time between the look whether a name is taken and the taking of it."""

    def get(self, key: str, default: object = None) -> object:
        found = super().get(key, default)
        time.sleep(0.001)
        return found


def test_of_many_threads_that_add_one_name_exactly_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(number: int) -> bool:
        try:
            registry.add_custom_model("contested", f"me/mine-{number}")
        except InputValueError:
            return False
        return True

    monkeypatch.setattr(registry, "_models", _SlowDict(registry._models))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(add, range(64)))

    assert outcomes.count(True) == 1


def test_similar_names_find_a_slip_a_missing_organisation_and_nothing_for_nonsense() -> None:
    assert registry.similar_names("Xenova/ms-marco-MiniLM-L6-v2")[0] in (
        "Xenova/ms-marco-MiniLM-L-6-v2",
        "cross-encoder/ms-marco-MiniLM-L6-v2",
    )
    assert registry.similar_names("bge-reranker-v2-m3")[0] == "BAAI/bge-reranker-v2-m3"
    assert registry.similar_names("embeded") == ["embedded"]
    assert registry.similar_names("zzzz") == []


class ModelSource:
    """As FastEmbed has it."""

    hf = "org/model"
    url = None


def test_the_same_model_may_be_added_again_and_another_under_its_name_may_not() -> None:
    for sources in ("org/model", {"hf": "org/model"}, ModelSource()):
        registry.add_custom_model("house-model", sources)

    with pytest.raises(InputValueError, match=r"is taken by the supported model 'house-model'"):
        registry.add_custom_model("House-Model", "org/other")
    with pytest.raises(InputValueError, match="taken"):
        registry.add_custom_model("house-model", "org/model", model_file="other.onnx")


@pytest.mark.parametrize("sources", [{"hf": 3}, {}, type("Source", (), {"hf": None})(), ""])
def test_a_source_without_a_hub_id_is_refused(sources: Any) -> None:
    with pytest.raises(InputValueError, match="must be a hub id"):
        registry.add_custom_model("house-model-2", sources)


def test_one_path_is_no_list_of_additional_files() -> None:
    with pytest.raises(InputTypeError, match="additional_files must be a list"):
        registry.add_custom_model("house-model-3", "org/model", additional_files="onnx/model.onnx_data")
    with pytest.raises(InputTypeError, match="additional_files must be a list of paths, not int"):
        registry.add_custom_model("house-model-3", "org/model", additional_files=3)  # type: ignore[arg-type]


def test_what_a_custom_name_meant_travels_with_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.add_custom_model("org/travels", "org/model")
    encoder = pickle.dumps(TextCrossEncoder("org/travels", lazy_load=True))
    door = pickle.dumps(RerankOptions(model="org/travels", lazy_load=True))
    elsewhere = {name: row for name, row in registry._models.items() if name != "org/travels"}

    for pickled in (encoder, door):
        monkeypatch.setattr(registry, "_models", dict(elsewhere))
        pickle.loads(pickled)
        row = registry.find("org/travels")
        assert row is not None
        assert row.sources == {"hf": "org/model"}
        pickle.loads(pickled)

    monkeypatch.setattr(registry, "_models", dict(elsewhere))
    registry.add_custom_model("org/travels", "org/other")
    with pytest.raises(InputValueError, match="means 'org/model' where it was pickled, and 'org/other'"):
        pickle.loads(encoder)


@pytest.mark.parametrize("given", ["m", "./m", "org/m", Path("org/m")])
def test_a_relative_folder_is_the_same_one_from_another_working_directory(
    given: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_toy(tmp_path / given)
    monkeypatch.chdir(tmp_path)
    encoder = TextCrossEncoder(given, cache_dir="cache")
    pickled = [pickle.dumps(one) for one in (encoder, RerankOptions(model=str(given)), TextCrossEncoder(place))]

    monkeypatch.chdir("/")
    again, door, absolute = map(pickle.loads, pickled)

    assert again.rerank("q", ["a"]) == encoder.rerank("q", ["a"])
    assert (Path(again.model_name), again.options.cache_dir) == (place, str(tmp_path / "cache"))
    assert Path(door.model) == place
    assert absolute == TextCrossEncoder(place)


def test_a_name_that_is_no_folder_travels_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lexical").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("lexical", "Xenova/ms-marco-MiniLM-L-6-v2", "org/name"):
        assert pickle.loads(pickle.dumps(TextCrossEncoder(name, lazy_load=True))).model_name == name
