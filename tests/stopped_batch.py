"""The command `batch`, which gets a signal at the moment when it has scored so many blocks, however busy the machine:
``python -m tests.stopped_batch SIGKILL 5 in.parquet out --model lexical``.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from onnx_rerank_integrations.extras.cli import main


def stop_after(blocks: int, sent: signal.Signals) -> None:
    """Sends this process a signal when it puts the scores of one more block than that in their place."""
    left = blocks

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and str(arguments[1]).endswith(".npy"):
            left -= 1
            if left == -1:
                signal.raise_signal(sent)

    sys.addaudithook(hear)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in background
    stop_after(int(sys.argv[2]), signal.Signals[sys.argv[1]])
    sys.exit(main(["batch", *sys.argv[3:]]))
