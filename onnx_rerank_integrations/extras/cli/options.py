"""Options that several commands share: which model, and how it is loaded."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "A supported model, any hub id with ONNX files, a folder, or 'embedded', which works offline."


class LongDocumentsChoice(StrEnum):
    """`LongDocuments` of the core."""

    TRUNCATE = "truncate"
    MAX = "max"
    MEAN = "mean"
    FIRST = "first"


JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

ModelFile = Annotated[
    str | None,
    typer.Option(help="auto, fp32, int8, or a path inside the model.", show_default=False),
]
Revision = Annotated[
    str | None,
    typer.Option(help="The hub's branch, tag or commit.", show_default=False),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Where models from the hub are kept.", show_default=False),
]
LocalFilesOnly = Annotated[bool, typer.Option("--local-files-only", help="Never ask the network.")]
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of query and document together.", show_default="the model's"),
]
LongDocuments = Annotated[
    LongDocumentsChoice,
    typer.Option(
        help="What is done with longer ones: cut them, or score windows of them and take the max, the mean or the "
        "first.",
    ),
]
Label = Annotated[
    str | None,
    typer.Option(help="For a model of three or more labels, the one to rank by.", show_default=False),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all CPUs")]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="An execution provider of onnxruntime, such as CUDAExecutionProvider; repeat for several.",
        show_default="the CPU",
    ),
]
