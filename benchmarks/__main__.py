"""The command: `python -m benchmarks`."""

import argparse
import datetime
import statistics
from pathlib import Path
from typing import Any

from benchmarks import bars, limit, machine, models, report
from benchmarks.contenders import CONTENDERS, FASTEMBED_BATCHES, REFERENCE, Contender
from benchmarks.measure import THREADS, Bench, Log, check, import_seconds
from benchmarks.texts import WORKLOADS, make_groups

RESULTS = Path(__file__).parent / "results"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="This package against its peers.")
    several: dict[str, Any] = {"action": "append", "metavar": "NAME"}
    parser.add_argument("--model", choices=list(models.SIZES), help="only this model (repeatable)", **several)
    timed = [name for name in WORKLOADS if name != "check"]
    parser.add_argument("--workload", choices=timed, help="only this workload (repeatable)", **several)
    parser.add_argument("--only", choices=list(CONTENDERS), help="only this contender (repeatable)", **several)
    parser.add_argument(
        "--threads", type=int, choices=THREADS, help="only this number of threads (repeatable)", **several
    )
    parser.add_argument("--rounds", type=int, default=3, help="samples of each figure (default 3)")
    parser.add_argument("--retries", type=int, default=3, help="tries after a sample under pressure (default 3)")
    parser.add_argument("--timeout", type=float, default=1800, help="most seconds of one sample (default 1800)")
    parser.add_argument("--out", type=Path, help="folder of the results (default benchmarks/results/<machine>)")
    parser.add_argument("--resume", action="store_true", help="keep the samples that the folder holds, take the rest")
    parser.add_argument("--quick", action="store_true", help="a smoke run of the smallest model")
    parser.add_argument("--report", action="store_true", help="measure nothing; write the table and the plot again")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Build, check, measure, report."""
    out = options.out or RESULTS / ("quick" if options.quick else machine.slug())
    if options.report:
        write_report(Log.read(out / "results.json"))
        return
    log = open_log(out, options)
    measure_machine(log)
    plan = planned(options)
    log.forget_skipped(plan)
    contenders = [CONTENDERS[name] for name in dict.fromkeys(options.only or CONTENDERS)]
    able = {model: prepare(log, model, contenders, options.timeout) for model in dict.fromkeys(one for one, _ in plan)}
    for model, workload in plan:
        bench(log, model, workload, options).measure(able[model])
    write_report(log)


def measure_machine(log: Log) -> None:
    """The limit that the figures are held against, and what an import costs."""
    log.about["limit"] = {str(threads): limit.measure(threads) for threads in THREADS}
    log.about["import_seconds"] = import_seconds()
    log.write()


def planned(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Which workload of which model, in order: the command line's, else each model's own."""
    names = options.model or (["tiny"] if options.quick else list(models.SIZES))
    quick = ("quick",) if options.quick else None
    return [
        (model, workload) for model in names for workload in options.workload or quick or models.SIZES[model].workloads
    ]


def prepare(log: Log, model: str, contenders: list[Contender], timeout: float) -> list[Contender]:
    """Build a model, and find who of the contenders scores it as the reference does."""
    size = models.SIZES[model]
    folder = models.build(size)
    log.about["models"][model] = str(size)
    print(f"\n{model}: {size}", flush=True)
    able = check(log, model, folder, [CONTENDERS[REFERENCE], *contenders], timeout)
    return [contender for contender in contenders if contender in able]


def bench(log: Log, model: str, workload: str, options: argparse.Namespace) -> Bench:
    """What one workload of a model asks for; memory takes one sample, as it hardly varies."""
    folder = models.SIZES[model].folder
    log.about["tokens"][f"{model} {workload}"] = describe_tokens(folder, workload)
    memory = WORKLOADS[workload].is_memory
    rounds = 1 if memory or options.quick else options.rounds
    threads = THREADS[:1] if memory else options.threads or THREADS
    batches = (64,) if memory else (1, 64) if options.quick else FASTEMBED_BATCHES
    retries = 0 if options.quick else options.retries
    return Bench(log, model, folder, workload, rounds, threads, batches, retries, options.timeout)


def describe_tokens(folder: Path, workload: str) -> dict[str, float]:
    """How long a workload's pairs are in the model's own tokens, cut to its length."""
    lengths = sorted(models.token_lengths(folder, make_groups(WORKLOADS[workload])))
    return {
        "pairs": len(lengths),
        "mean": statistics.mean(lengths),
        "p95": lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
        "total": sum(lengths),
        "squares": sum(length**2 for length in lengths),
    }


def open_log(out: Path, options: argparse.Namespace) -> Log:
    """The folder's earlier results where they are to be kept, else an empty log of this machine."""
    path = out / "results.json"
    if options.resume and path.exists():
        log = Log.read(path)
        if log.about["machine"] != machine.describe():
            raise SystemExit(f"{path} was measured on another machine; choose another --out.")
        return log
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "models": {},
        "tokens": {},
        "versions": {},
    }
    return Log(path, about)


def write_report(log: Log) -> None:
    """table.md and plot.png beside results.json; the table on the screen too."""
    folder = log.path.parent
    log.write()
    text = report.document(log) + "\n## Bars\n\n" + bars.table(bars.bars(log)) + "\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    report.plot(log, folder / "plot.png")
    print(f"\n{text}\nwritten to {folder}")


if __name__ == "__main__":
    run(parse())
