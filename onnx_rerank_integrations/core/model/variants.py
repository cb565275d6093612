"""Which of a model's ONNX files to load: full precision, the int8 one that fits this CPU, or one by its path."""

from __future__ import annotations

import difflib
import platform
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx_rerank_integrations.core.errors import InputTypeError, InputValueError, ModelNotFoundError

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})


GRAPH_FOLDERS = ("onnx/", "")
"""Where graphs lie in a repository, best first."""

SHORT_NAMES = {
    # transformers.js: its `dtype`
    "fp16": "model_fp16",
    "q8": "model_quantized",
    "uint8": "model_uint8",
    "q4": "model_q4",
    "q4f16": "model_q4f16",
    "q2": "model_q2",
    "q2f16": "model_q2f16",
    "q1": "model_q1",
    "q1f16": "model_q1f16",
    "bnb4": "model_bnb4",
    # optimum and sentence-transformers: optimization levels, and quantizations by CPU
    **{f"o{level}": f"model_O{level}" for level in range(1, 5)},
    "qint8_arm64": "model_qint8_arm64",
    "qint8_avx512": "model_qint8_avx512",
    "qint8_avx512_vnni": "model_qint8_avx512_vnni",
    "quint8_avx2": "model_quint8_avx2",
}
"""What `model_file` takes beside ``"auto"``, ``"fp32"`` and ``"int8"``, and the file that is meant."""


def cpu_features(machine: str | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that int8 files are made for: ``arm64``; or ``avx2``, ``avx512``, ``avx512_vnni``.

    An x86 machine without ``/proc/cpuinfo`` (macOS, Windows) counts as avx2, which every x86 since 2015 has.
    """
    machine = (machine or platform.machine()).lower()
    if machine in ("arm64", "aarch64"):
        return frozenset({"arm64"})
    if machine not in _X86:
        return frozenset()
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset({"avx2"})
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    has_avx512 = flags >= _AVX512
    asked = {"avx2": "avx2" in flags, "avx512": has_avx512, "avx512_vnni": has_avx512 and "avx512_vnni" in flags}
    return frozenset(feature for feature, present in asked.items() if present)


def candidates(
    model_file: str | None,
    *,
    preferred: str | None,
    features: frozenset[str] | None = None,
    folders: Sequence[str] = GRAPH_FOLDERS,
) -> list[str]:
    """The paths to look for, best first.

    Args:
        model_file: ``"auto"`` (or None): the registry's file, ``onnx/model.onnx``, ``model.onnx``. ``"fp32"``: the
            same without the registry's. ``"int8"``: the files that sentence-transformers names after a CPU
            (``model_qint8_arm64``; ``model_qint8_avx512_vnni``, ``model_qint8_avx512``, ``model_quint8_avx2``), those
            this CPU has the instructions for, then those for any CPU: ``model_int8``, ``model_quantized``,
            ``model_uint8``; each in ``onnx/``, then in the root. A short name of transformers.js or optimum
            (`SHORT_NAMES`), in any case: its file. Else a path inside the repository or folder.
        preferred: The registry's file.
        features: What `cpu_features` gives, looked up where None.
        folders: Where to look.

    Raises:
        InputTypeError: `model_file` is no str.
        InputValueError: A path that leads out, or to something other than an ``.onnx`` file.
    """
    if model_file is not None and not isinstance(model_file, str):
        raise InputTypeError(f"model_file must be a str or None, got {type(model_file).__name__}")
    usual = [f"{folder}model.onnx" for folder in folders]
    if model_file in (None, "auto"):
        return [*([preferred] if preferred else []), *usual]
    if model_file == "fp32":
        return usual
    if model_file == "int8":
        names = _int8_names(cpu_features() if features is None else features)
        return [f"{folder}{name}.onnx" for name in names for folder in folders]
    if short := SHORT_NAMES.get(model_file.lower()):
        return [f"{folder}{short}.onnx" for folder in folders]
    return [_inner_path(model_file)]


def choose(
    model: str,
    names: Collection[str],
    model_file: str | None,
    *,
    preferred: str | None = None,
    features: frozenset[str] | None = None,
    folders: Sequence[str] = GRAPH_FOLDERS,
) -> str:
    """The ONNX file to load out of `names`, the paths that a repository or a folder holds.

    Raises:
        ModelNotFoundError: None of the candidates is there. The message lists the ONNX files that are.
    """
    looked_for = candidates(model_file, preferred=preferred, features=features, folders=folders)
    for candidate in looked_for:
        if candidate in names:
            return candidate
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if model_file in (None, "auto") and len(graphs) == 1:
        return graphs[0]
    if not graphs:
        raise ModelNotFoundError(
            f"{model!r} holds no .onnx file.\n"
            f"To load {model!r}, export it to ONNX first (`onnx-rerank export {model} FOLDER`), "
            "or look for an ONNX version of it on the hub."
        )
    wanted = {
        "auto": "obvious ONNX file",
        "fp32": "full-precision ONNX file by its usual name",
        "int8": f"int8 ONNX file for this CPU ({platform.machine()}) by its usual name",
    }
    what = wanted.get(
        model_file or "auto",
        f"{model_file} ({looked_for[0]})" if (model_file or "").lower() in SHORT_NAMES else model_file,
    )
    near = difflib.get_close_matches(looked_for[0], graphs, n=1, cutoff=0.3) if model_file not in wanted else []
    raise ModelNotFoundError(
        f"{model!r} has no {what}. Its ONNX files: {', '.join(graphs)}.\n"
        f"To load {model!r}, name one of them, such as model_file={(near or graphs)[0]!r}."
    )


def _int8_names(features: frozenset[str]) -> list[str]:
    fitting = {
        "arm64": "model_qint8_arm64",
        "avx512_vnni": "model_qint8_avx512_vnni",
        "avx512": "model_qint8_avx512",
        "avx2": "model_quint8_avx2",
    }
    special = [name for feature, name in fitting.items() if feature in features]
    return [*special, "model_int8", "model_quantized", "model_uint8"]


def _inner_path(model_file: str) -> str:
    path = PurePosixPath(model_file.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(model_file).anchor:
        raise InputValueError(
            f"model_file={model_file!r} leads out of the model: give a path inside it, such as 'onnx/model.onnx'"
        )
    if path.suffix != ".onnx":
        raise InputValueError(
            f"model_file={model_file!r} is no .onnx file: give 'auto', 'fp32', 'int8', a short name "
            f"({', '.join(SHORT_NAMES)}), or a path such as 'onnx/model.onnx'"
        )
    return str(path)
