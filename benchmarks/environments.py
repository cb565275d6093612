"""Environments of their own for peers that can't share ours: made with venv and pip, once, when first asked for."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent

# optimum-onnx 0.1.0 holds transformers below 4.58, optimum-intel 2.2.0 below 5.6; the shared environment has a later 5.
# infinity-emb 0.0.78 wants numpy below 2 and sentence-transformers below 4.
PACKAGES = {
    "st-openvino": ["optimum-intel[openvino]==2.2.0", "sentence-transformers>=6,<7", "torch==2.13.0"],
    "infinity": ["infinity-emb[torch,optimum,server]==0.0.78", "torch==2.13.0"],
    "st-onnx": ["optimum-onnx[onnxruntime]==0.1.0", "sentence-transformers>=5,<6", "transformers<5", "torch==2.13.0"],
}

# What is brought along and breaks: torchvision of PyPI doesn't know a torch that is built for CPUs alone.
REMOVED = {"st-openvino": ["torchvision"]}

# What a sample's versions are read from, in whichever environment it runs.
VERSIONED = (
    "fastembed",
    "flashrank",
    "fastretrieval",
    "kjarni",
    "candding",
    "rerankers",
    "sentence-transformers",
    "optimum-onnx",
    "optimum-intel",
    "infinity-emb",
    "transformers",
    "torch",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "numpy",
)


class UnavailableEnvironmentError(RuntimeError):
    """An environment could not be made; the message holds pip's last words."""


def python(environment: str | None) -> str:
    """The interpreter of an environment, made on demand; None is the running one.

    Raises:
        UnavailableEnvironmentError: pip could not install the packages.
    """
    if environment is None:
        return sys.executable
    folder = HERE / f".venv-{environment}"
    interpreter = folder / "bin" / "python"
    stamp = folder / "packages.json"
    packages = PACKAGES[environment]
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == packages:
        return str(interpreter)
    print(f"making the environment {folder.name}: {', '.join(packages)} ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableEnvironmentError("\n".join(done.stderr.strip().splitlines()[-5:]))
    if removed := REMOVED.get(environment):
        subprocess.run([str(interpreter), "-m", "pip", "uninstall", "--quiet", "--yes", *removed], check=True)
    stamp.write_text(json.dumps(packages), encoding="utf-8")
    return str(interpreter)
