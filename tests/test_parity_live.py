"""PyTorch still gives the logits the parity fixtures were committed with. Needs torch and transformers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.fixtures import names, scores

REASON = "recomputing the parity scores needs torch and transformers: pip install --group parity"
pytest.importorskip("torch", reason=REASON, exc_type=ImportError)
pytest.importorskip("transformers", reason=REASON, exc_type=ImportError)


@pytest.mark.parametrize("name", names())
def test_the_model_built_anew_in_pytorch_gives_the_committed_logits(name: str) -> None:
    from tests.parity.make import score

    committed = scores(name)

    logits = score(name, [(query, document) for query, document in committed["pairs"]])

    np.testing.assert_allclose(logits, committed["logits"], rtol=0, atol=1e-4)
