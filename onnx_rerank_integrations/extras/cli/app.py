"""The list of commands, and what an error of ours does to them.

To add a command: write it as a function with typer's annotations in a file beside this one, import what only its extra
brings inside the function (with `needs_extra`), and name it in `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onnx_rerank_integrations.core.errors import RerankError
from onnx_rerank_integrations.extras.cli.batch import batch
from onnx_rerank_integrations.extras.cli.bench import bench
from onnx_rerank_integrations.extras.cli.cache import cache
from onnx_rerank_integrations.extras.cli.evaluate import evaluate
from onnx_rerank_integrations.extras.cli.exit_codes import OUR_ERROR, PIPE_CLOSED, stopped
from onnx_rerank_integrations.extras.cli.export import check, export
from onnx_rerank_integrations.extras.cli.models import download, models
from onnx_rerank_integrations.extras.cli.quantize import quantize
from onnx_rerank_integrations.extras.cli.rank import rank
from onnx_rerank_integrations.extras.cli.serve import serve
from onnx_rerank_integrations.extras.cli.version import print_version, version

COMMANDS: tuple[Callable[..., None], ...] = (
    rank,
    models,
    download,
    cache,
    serve,
    evaluate,
    batch,
    bench,
    export,
    check,
    quantize,
    version,
)


class Commands(TyperGroup):
    """Says our errors on stderr and turns them into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RerankError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(OUR_ERROR) from error
        except KeyboardInterrupt as stop:
            raise typer.Exit(stopped(stop)) from stop
        except BrokenPipeError as error:
            raise typer.Exit(PIPE_CLOSED) from error
        except MemoryError as error:
            typer.echo(" ".join(["Error: there isn't enough memory.", *getattr(error, "__notes__", ())]), err=True)
            raise typer.Exit(OUR_ERROR) from error
        except OSError as error:
            typer.echo(f"Error: {error.strerror or error}", err=True)
            raise typer.Exit(OUR_ERROR) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks would show the user's texts
    rich_markup_mode=None,  # plain help: whole in a pipe, and its examples can be copied
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Rank texts by relevance to a query with an ONNX cross-encoder, on a plain CPU."""
