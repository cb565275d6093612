"""Runs the parts, one after the other, and prints what each tried: ``python -m tests.soak --seconds 60 files hub``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

PARTS = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name[0] != "_")


def run_parts(parts: Sequence[str], *, seconds: float, seed: int) -> dict[str, dict[str, int]]:
    """The counts of each part that held; a part that didn't prints its traceback and is left out."""
    counts = {}
    for name in parts:
        started = time.monotonic()
        try:
            counts[name] = importlib.import_module(f"tests.soak.{name}").run(seconds, seed)
        except Exception:  # noqa: BLE001 - the other parts still run
            print(f"{name}: BROKEN with seed {seed}\n{traceback.format_exc()}", flush=True)
            continue
        listed = ", ".join(f"{count:,} {what}" for what, count in counts[name].items())
        print(f"{name}: {listed} ({time.monotonic() - started:.0f} s)", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which to run; all by default: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each part; 0 is its least work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the counts to this file, if all parts held")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if arguments.json and set(parts) != set(PARTS):
        parser.error("--json is of all parts, so that a table of it holds one whole run")
    started = time.monotonic()
    counts = run_parts(parts, seconds=arguments.seconds, seed=arguments.seed)
    took = round(time.monotonic() - started)
    print(f"all: {len(counts)} of {len(parts)} parts held ({took} s, {os.cpu_count()} CPUs)")
    held = len(counts) == len(parts)
    if arguments.json and held:
        counts = {"all": {"seconds": took, "CPUs": os.cpu_count() or 0, "seed": arguments.seed}, **counts}
        arguments.json.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
