"""From a name or a folder to a model's files, without a network: folders, the choice of a file, broken files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_rerank_integrations import TextCrossEncoder
from onnx_rerank_integrations.core.errors import (
    InputTypeError,
    InputValueError,
    InvalidModelError,
    ModelNotFoundError,
    UnknownModelError,
)
from onnx_rerank_integrations.core.model import files, registry, variants
from onnx_rerank_integrations.core.model.external_data import is_accepted
from onnx_rerank_integrations.core.onnx_format import describe_broken, external_data
from tests.onnx_files import graph, model_files, run, write

# --- names and folders ------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_files_and_configuration(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files())

    found = files.locate(str(folder))

    assert found.onnx == folder / "onnx" / "model.onnx"
    assert found.tokenizer == folder / "tokenizer.json"
    assert found.folder == folder
    assert found.config == {"num_labels": 1}
    assert found.tokenizer_config == {"model_max_length": 512}
    assert found.license is None
    assert found.commit is None
    assert run(found.onnx) == [5.0, 7.0, 9.0]


def test_every_file_that_decides_a_score_is_listed(tmp_path: Path) -> None:
    more = {
        "special_tokens_map.json": b"{}",
        "modules.json": json.dumps(
            [{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "2_Dense"}]
        ).encode(),
        "2_Dense/config.json": b"{}",
        "2_Dense/model.safetensors": b"weights",
    }
    folder = write(tmp_path, {**model_files("model.onnx_data"), **more, "README.md": b"", "training.json": b"{}"})

    found = files.locate(str(folder))

    assert [path.relative_to(folder).as_posix() for path in found.files] == [
        *("onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json", "config.json", "tokenizer_config.json"),
        *("special_tokens_map.json", "modules.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
    ]


def test_a_folder_may_be_relative_a_path_object_or_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "models" / "mine", model_files())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    for name in ("models/mine", "./models/mine", "~/models/mine", folder):
        assert files.locate(name).onnx.resolve() == folder / "onnx" / "model.onnx"


def test_a_relative_folder_stays_the_same_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "parity" / "bert", tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DeprecationWarning, match="specific_model_path"):
        by_path = TextCrossEncoder("name", specific_model_path="model", optimize="off")
    encoders = [TextCrossEncoder("model", optimize="off"), TextCrossEncoder("model"), by_path]
    expected = [encoder.rerank("a bee", ["a hive"]) for encoder in encoders]
    monkeypatch.chdir("/")

    assert files.locate(folder).onnx.is_absolute()
    for encoder, scores in zip(encoders, expected, strict=True):
        encoder.load()._session.renew()  # as in a forked child, which opens its graph anew
        assert encoder.rerank("a bee", ["a hive"]) == scores


def test_a_folder_without_configuration_has_an_empty_one(tmp_path: Path) -> None:
    folder = write(tmp_path, {"model.onnx": graph()["model.onnx"], "tokenizer.json": b"{}"})

    found = files.locate(str(folder))

    assert found.config == {}
    assert found.tokenizer_config == {}


def test_the_embedded_model_is_a_folder_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, model_files(folder=""))
    monkeypatch.setattr(files, "_PACKAGED_MODELS", folder.parent)
    monkeypatch.setitem(registry.PACKAGED, "embedded", folder.name)

    found = files.locate("Embedded")

    assert found.onnx == folder / "model.onnx"
    assert found.license == "apache-2.0"
    assert files.is_cached("embedded")


def test_an_installation_that_lost_the_embedded_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PACKAGED_MODELS", tmp_path / "gone")

    with pytest.raises(ModelNotFoundError, match="install the package again"):
        files.locate("embedded")


def test_a_specific_path_is_read_in_place_of_the_hub_with_the_registrys_file_and_license(tmp_path: Path) -> None:
    folder = write(tmp_path, model_files() | {"onnx/model_int8.onnx": graph()["model.onnx"]})

    found = files.locate("BAAI/bge-reranker-v2-m3-int8", specific_model_path=str(folder))

    assert found.onnx == folder / "onnx" / "model_int8.onnx"
    assert found.name == "BAAI/bge-reranker-v2-m3-int8"
    assert found.license == "apache-2.0"


def test_an_existing_folder_wins_over_a_hub_id_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "org" / "name", model_files())
    monkeypatch.chdir(tmp_path)

    assert files.locate("org/name").commit is None


def test_a_path_that_is_not_there_says_so_with_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    for name in ("./no-such", "models/of/mine", "~/no-such-folder-of-mine", str(tmp_path / "no-such"), "no\\such"):
        with pytest.raises(ModelNotFoundError, match="looks like a path, and there is no folder") as caught:
            files.locate(name)
        assert repr(name) in str(caught.value).splitlines()[-1]
    with pytest.raises(ModelNotFoundError, match="specific_model_path looks like a path"):
        files.locate("org/name", specific_model_path="elsewhere")


def test_an_onnx_file_as_the_model_is_sent_to_its_folder(tmp_path: Path) -> None:
    write(tmp_path, graph())

    with pytest.raises(InputValueError, match=r"give its folder as the model and model_file='model.onnx'"):
        files.locate(str(tmp_path / "model.onnx"))


def test_an_unknown_name_is_told_near_names_and_the_other_ways() -> None:
    with pytest.raises(UnknownModelError) as caught:
        files.locate("ms-marco-MiniLM-L6-v2")

    message = str(caught.value)
    assert "is no supported model, no hub id (org/name) and no folder here" in message
    assert "Did you mean 'cross-encoder/ms-marco-MiniLM-L6-v2' or 'Xenova/ms-marco-MiniLM-L-6-v2'" in message
    last = message.splitlines()[-1]
    assert last.startswith("To load 'ms-marco-MiniLM-L6-v2', give a supported name (`onnx-rerank models` lists them)")
    assert last.endswith("or a folder with an .onnx file and tokenizer.json.")
    with pytest.raises(UnknownModelError):
        files.locate("")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model_name": None}, InputTypeError, "model_name must be a str or a path, got NoneType"),
        ({"model_name": 7}, InputTypeError, "model_name must be a str or a path, got int"),
        ({"model_name": "org/name", "cache_dir": 7}, InputTypeError, "cache_dir must be a str or a path"),
        ({"model_name": "org/name", "revision": 7}, InputTypeError, "revision must be a str or None"),
        ({"model_name": "org/name", "revision": "../../etc"}, InputValueError, "a branch, a tag or a commit"),
        ({"model_name": "org/name", "revision": " "}, InputValueError, "a branch, a tag or a commit"),
        ({"model_name": "org/name", "expected_sha256": "abc"}, InputValueError, "64 hexadecimal digits"),
        ({"model_name": "org/name", "model_file": 7}, InputTypeError, "model_file must be a str or None"),
        ({"model_name": "org/name", "model_file": "../model.onnx"}, InputValueError, "leads out of the model"),
        ({"model_name": "org/name", "model_file": "/model.onnx"}, InputValueError, "leads out of the model"),
        ({"model_name": "org/name", "model_file": "C:\\model.onnx"}, InputValueError, "leads out of the model"),
        ({"model_name": "org/name", "model_file": "pytorch_model.bin"}, InputValueError, "is no .onnx file"),
    ],
)
def test_a_malformed_argument_is_refused_before_anything_is_asked_of_a_hub(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        files.locate(**arguments)


def test_importing_the_files_does_not_import_huggingface_hub() -> None:
    code = (
        "import sys, onnx_rerank_integrations.core.model.files; "
        "print([name for name in ('huggingface_hub', 'onnxruntime', 'onnx', 'tqdm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# --- which ONNX file --------------------------------------------------------------------------------------------------

ALL_INT8 = [
    "onnx/model_qint8_arm64.onnx",
    "onnx/model_qint8_avx512.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_uint8.onnx",
]


@pytest.mark.parametrize(
    ("features", "names", "expected"),
    [
        ({"arm64"}, ALL_INT8, "onnx/model_qint8_arm64.onnx"),
        ({"avx2", "avx512", "avx512_vnni"}, ALL_INT8, "onnx/model_qint8_avx512_vnni.onnx"),
        ({"avx2", "avx512"}, ALL_INT8, "onnx/model_qint8_avx512.onnx"),
        ({"avx2"}, ALL_INT8, "onnx/model_quint8_avx2.onnx"),
        (set(), ALL_INT8, "onnx/model_int8.onnx"),
        ({"avx2", "avx512"}, ["onnx/model_quint8_avx2.onnx"], "onnx/model_quint8_avx2.onnx"),
        ({"arm64"}, ["onnx/model_quantized.onnx", "onnx/model_uint8.onnx"], "onnx/model_quantized.onnx"),
        ({"avx2"}, ["onnx/model_uint8.onnx", "onnx/model.onnx"], "onnx/model_uint8.onnx"),
        ({"avx2"}, ["model_int8.onnx", "onnx/model_quantized.onnx"], "model_int8.onnx"),
        ({"avx2"}, ["model_quint8_avx2.onnx", "onnx/model_quint8_avx2.onnx"], "onnx/model_quint8_avx2.onnx"),
    ],
)
def test_int8_is_the_file_that_fits_the_cpu(features: set[str], names: list[str], expected: str) -> None:
    assert variants.choose("org/name", names, "int8", features=frozenset(features)) == expected


def test_int8_without_a_fitting_file_lists_those_there_are() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        variants.choose(
            "org/name",
            ["onnx/model.onnx", "onnx/model_qint8_arm64.onnx", "README.md"],
            "int8",
            features=frozenset({"avx2"}),
        )

    first, last = str(caught.value).splitlines()
    assert "has no int8 ONNX file for this CPU" in first
    assert first.endswith("Its ONNX files: onnx/model.onnx, onnx/model_qint8_arm64.onnx.")
    assert last == "To load 'org/name', name one of them, such as model_file='onnx/model.onnx'."


@pytest.mark.parametrize(
    ("names", "preferred", "expected"),
    [
        (["onnx/model_int8.onnx", "onnx/model.onnx"], "onnx/model_int8.onnx", "onnx/model_int8.onnx"),
        (["onnx/model.onnx", "model.onnx", "other.onnx"], None, "onnx/model.onnx"),
        (["model.onnx", "other.onnx"], None, "model.onnx"),
        (["model.onnx"], "onnx/gone.onnx", "model.onnx"),
        (["deep/rerank.onnx", "README.md"], None, "deep/rerank.onnx"),
    ],
)
def test_auto_is_the_registrys_file_else_the_usual_one_else_the_only_one(
    names: list[str], preferred: str | None, expected: str
) -> None:
    assert variants.choose("org/name", names, None, preferred=preferred) == expected
    assert variants.choose("org/name", names, "auto", preferred=preferred) == expected


def test_auto_among_several_files_without_an_obvious_one_lists_them() -> None:
    with pytest.raises(ModelNotFoundError, match=r"no obvious ONNX file\. Its ONNX files: a\.onnx, b\.onnx\."):
        variants.choose("org/name", ["b.onnx", "a.onnx"], "auto")


def test_fp32_passes_over_the_registrys_int8_file() -> None:
    names = ["onnx/model.onnx", "onnx/model_int8.onnx"]

    assert variants.choose("m", names, "fp32", preferred="onnx/model_int8.onnx") == "onnx/model.onnx"
    with pytest.raises(ModelNotFoundError, match="no full-precision ONNX file"):
        variants.choose("m", ["onnx/model_int8.onnx"], "fp32")


def test_a_path_is_taken_as_it_is_in_either_spelling_of_slashes() -> None:
    names = ["onnx/model_O2.onnx", "onnx/model.onnx"]

    assert variants.choose("m", names, "onnx/model_O2.onnx") == "onnx/model_O2.onnx"
    assert variants.choose("m", names, "onnx\\model_O2.onnx") == "onnx/model_O2.onnx"
    with pytest.raises(ModelNotFoundError, match=r"has no onnx/model_O9\.onnx\. Its ONNX files: onnx/model\.onnx, "):
        variants.choose("m", names, "onnx/model_O9.onnx")


def test_a_model_without_onnx_files_is_sent_to_the_export(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"..."})

    with pytest.raises(ModelNotFoundError, match=r"holds no \.onnx file\.\nTo load .* \(`onnx-rerank export "):
        files.locate(str(tmp_path))


CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 {flags}\nbugs\t\t: none\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx avx2", {"avx2"}),
        ("avx2 avx512f", {"avx2"}),
        ("avx2 avx512f avx512bw avx512dq avx512vl", {"avx2", "avx512"}),
        ("avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni", {"avx2", "avx512", "avx512_vnni"}),
        ("avx", set()),
    ],
)
def test_the_cpus_features_are_read_from_proc_cpuinfo(tmp_path: Path, flags: str, expected: set[str]) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO.format(flags=flags))

    assert variants.cpu_features("x86_64", cpuinfo) == expected
    assert variants.cpu_features("aarch64", cpuinfo) == {"arm64"}


def test_without_proc_cpuinfo_an_x86_counts_as_avx2_and_an_unknown_machine_as_nothing(tmp_path: Path) -> None:
    assert variants.cpu_features("AMD64", tmp_path / "none") == {"avx2"}
    assert variants.cpu_features("arm64", tmp_path / "none") == {"arm64"}
    assert variants.cpu_features("riscv64", tmp_path / "none") == frozenset()


# --- external data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("model.onnx_data",),
        ("model.onnx.data",),
        ("model.onnx_data", "model.onnx_data_1"),
        ("any name.weights",),
        ("parts/a.bin", "parts/b.bin"),
    ],
)
def test_external_data_of_any_name_is_found_in_the_graph_and_loads(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = write(tmp_path, model_files(*names))

    found = files.locate(str(folder))

    assert set(external_data(found.onnx)) == set(names)
    assert run(found.onnx) == [5.0, 7.0, 9.0]


def test_external_data_is_found_in_constants_and_subgraphs_too(tmp_path: Path) -> None:
    def external(name: str) -> TensorProto:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
        tensor.ClearField("float_data")
        tensor.raw_data = b"\0\0\0\0"
        onnx.external_data_helper.set_external_data(tensor, f"{name}.data", offset=4096, length=4)
        tensor.ClearField("raw_data")
        return tensor

    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=external("in_branch"))],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])],
    )
    other_branch = helper.make_graph(
        [helper.make_node("Constant", [], ["d"], value=external("in_list"))],
        "other branch",
        [],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [1])],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=external("in_constant")),
        helper.make_node("Custom", [], ["e"], domain="test", branches=[other_branch]),
        helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch),
    ]
    inputs = [helper.make_tensor_value_info("condition", TensorProto.BOOL, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)).SerializeToString())

    assert external_data(path) == {"in_constant.data": 4100, "in_branch.data": 4100, "in_list.data": 4100}


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret", "..\\secret", "."])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    data = graph("model.onnx_data")
    (tmp_path / "secret").write_bytes(b"x" * 100)
    renamed = _with_location(data["model.onnx"], location)
    folder = write(tmp_path / "model", model_files() | {"onnx/model.onnx": renamed})

    with pytest.raises(InvalidModelError, match="names external data outside its folder"):
        files.locate(str(folder))


def test_external_data_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    content = model_files("model.onnx_data")
    elsewhere = write(tmp_path / "elsewhere", {"data": content.pop("onnx/model.onnx_data")})
    folder = write(tmp_path / "model", content)
    (folder / "onnx" / "model.onnx_data").symlink_to(elsewhere / "data")

    with pytest.raises(InvalidModelError, match=r"a link that leads out of its folder: onnx/model\.onnx_data"):
        files.locate(str(folder))


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    content = model_files("model.onnx_data")
    del content["onnx/model.onnx_data"]

    with pytest.raises(ModelNotFoundError, match=r"onnx/model\.onnx_data is missing"):
        files.locate(str(write(tmp_path, content)))


@pytest.mark.parametrize("kept", [0, 12, 20])
def test_truncated_external_data_is_told_before_onnxruntime_meets_it(tmp_path: Path, kept: int) -> None:
    content = model_files("model.onnx_data")
    content["onnx/model.onnx_data"] = content["onnx/model.onnx_data"][:kept]

    with pytest.raises(InvalidModelError, match=rf"it has {kept} bytes, the graph reads 24"):
        files.locate(str(write(tmp_path, content)))


# --- broken files -----------------------------------------------------------------------------------------------------

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 90405214\n"
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (LFS_POINTER, r"is a git-lfs pointer of 133 bytes, .*`git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", r"is a web page \(HTML\)"),
        (b"\n\n<html lang='en'>", r"is a web page \(HTML\)"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML message"),
        (b"PK\x03\x04rest of a checkpoint", "is a zip archive"),
        (b"\x1f\x8b\x08\x00rest", "is a gzip archive"),
        (b"\x80\x02}q\x00.", "is a Python pickle"),
        (b"\x20\x00\x00\x00ORTMrest", r"is an onnxruntime \.ort file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}" + b" " * 100, "is a safetensors file"),
        (b"not a model at all, only text", "isn't an ONNX model"),
        (b"\xff" * 64, "isn't an ONNX model"),
        (b'{"error": "Entry not found"}', "isn't an ONNX model"),
        (b"\x08\x08", "its protobuf holds no graph and no opset"),
    ],
)
def test_a_broken_onnx_file_is_told_by_its_first_bytes(tmp_path: Path, content: bytes, expected: str) -> None:
    folder = write(tmp_path, model_files() | {"onnx/model.onnx": content})

    with pytest.raises(InvalidModelError, match=expected) as caught:
        files.locate(str(folder))

    message = str(caught.value)
    assert str(folder / "onnx" / "model.onnx") in message
    assert message.splitlines()[-1] == (
        f"To load {str(folder)!r}, replace the file; one from the hub with `onnx-rerank download {folder} --force`."
    )


def test_an_onnx_file_cut_at_any_byte_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    whole = graph()["model.onnx"]
    path = tmp_path / "model.onnx"

    path.write_bytes(whole)
    assert describe_broken(path) is None
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        assert describe_broken(path) is not None


def test_random_bytes_never_do_more_than_be_refused(tmp_path: Path) -> None:
    whole, generator, path = graph("model.onnx_data")["model.onnx"], random.Random(7), tmp_path / "model.onnx"
    for _ in range(500):
        mutated = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            mutated[generator.randrange(len(mutated))] = generator.randrange(256)
        path.write_bytes(mutated)
        try:
            found = external_data(path)
        except ValueError:
            continue
        assert all(isinstance(name, str) for name in found)


def test_a_missing_file_and_a_folder_are_described(tmp_path: Path) -> None:
    assert describe_broken(tmp_path / "none.onnx") == "doesn't exist"
    assert "can't be read" in (describe_broken(tmp_path) or "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1,\n  "b": }', "config.json isn't valid JSON: Expecting value at line 2, column 8"),
        (b"", "config.json is empty"),
        (b"\xff\xfe{", "config.json isn't UTF-8 text: byte 0"),
        (b"[1, 2]", "config.json holds a JSON list, not an object"),
        (LFS_POINTER, "config.json is a git-lfs pointer"),
        (b"[" * 200_000, "config.json isn't usable JSON: nested too deeply"),
    ],
)
def test_broken_json_names_the_file_and_the_place(tmp_path: Path, content: bytes, expected: str) -> None:
    folder = write(tmp_path, model_files() | {"config.json": content})

    with pytest.raises(InvalidModelError, match=expected):
        files.locate(str(folder))


def test_a_tokenizer_that_is_a_web_page_is_refused_up_front_and_its_syntax_on_request(tmp_path: Path) -> None:
    folder = write(tmp_path, model_files() | {"tokenizer.json": b"<!doctype html><html></html>"})
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json is a web page"):
        files.locate(str(folder))

    (folder / "tokenizer.json").write_bytes(b'{"model": ')
    assert describe_broken(files.locate(str(folder)).tokenizer) == (
        "isn't valid JSON: Expecting value at line 1, column 11"
    )


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("tokenizer.model", "only tokenizer.model, which transformers can convert"),
        ("vocab.txt", "only vocab.txt, which transformers can convert"),
        (None, "and no other tokenizer file"),
    ],
)
def test_a_missing_tokenizer_json_says_how_to_make_one(tmp_path: Path, present: str | None, expected: str) -> None:
    content = model_files()
    del content["tokenizer.json"]
    if present:
        content[present] = b"..."
    folder = write(tmp_path, content)

    with pytest.raises(ModelNotFoundError, match=f"has no tokenizer.json, {expected}") as caught:
        files.locate(str(folder))
    assert f"`AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained(FOLDER)`" in str(caught.value)


def test_a_tokenizer_beside_the_graph_serves_where_the_root_has_none(tmp_path: Path) -> None:
    content = model_files()
    content["onnx/tokenizer.json"] = content.pop("tokenizer.json")

    assert files.locate(str(write(tmp_path, content))).tokenizer == tmp_path / "onnx" / "tokenizer.json"


def test_the_expected_sha256_is_checked_on_the_onnx_file(tmp_path: Path) -> None:
    content = model_files()
    folder = write(tmp_path, content)
    digest = hashlib.sha256(content["onnx/model.onnx"]).hexdigest()

    assert files.locate(str(folder), expected_sha256=digest.upper()).onnx.is_file()
    with pytest.raises(InvalidModelError, match=f"has the sha256 {digest}, expected_sha256 says {'0' * 64}"):
        files.locate(str(folder), expected_sha256="0" * 64)


def test_a_snapshot_of_the_hubs_shared_store_named_by_its_path_is_linked_side_by_side(tmp_path: Path) -> None:
    # huggingface_hub 2 keeps such blobs in folders by their first two digits; onnxruntime 1.24 refuses data from there.
    content = model_files("model.onnx_data")
    storage = tmp_path / "models--org--name"
    snapshot = storage / "snapshots" / ("a" * 40)
    for number, (name, data) in enumerate(content.items()):
        blob = tmp_path / "blobs" / f"{number:02d}" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    assert not is_accepted(snapshot / "onnx/model.onnx", [snapshot / "onnx/model.onnx_data"])

    found = files.locate(str(snapshot))

    assert run(found.onnx) == [5.0, 7.0, 9.0]
    assert found.onnx.is_relative_to(storage / "onnx-rerank")
    assert found.onnx.stat().st_nlink == 2, "a hard link, no second copy"
    assert json.loads(found.tokenizer.read_bytes()) == {"version": "1.0"}


def _with_location(model: bytes, location: str) -> bytes:
    """The model with all its external data elsewhere."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
    return proto.SerializeToString()
