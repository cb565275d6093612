import json
from pathlib import Path

from onnx_rerank_integrations.core.types import ModelFiles


def describe_broken(path):
    return None


def locate(model_name, **k):
    folder = Path(k.get("specific_model_path") or model_name)

    def j(n):
        p = folder / n
        return json.loads(p.read_text()) if p.exists() else {}

    onnx = folder / "model.onnx"
    return ModelFiles(
        folder=folder,
        name=str(model_name),
        onnx=onnx,
        tokenizer=folder / "tokenizer.json",
        config=j("config.json"),
        tokenizer_config=j("tokenizer_config.json"),
    )
