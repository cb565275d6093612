"""``python -m onnx_rerank_integrations`` is the command ``onnx-rerank``."""

import sys

from onnx_rerank_integrations.extras.cli import main

if __name__ == "__main__":
    sys.exit(main())
