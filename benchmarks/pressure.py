"""How busy others kept the machine meanwhile: Linux's pressure stall information, CPU time and stolen time."""

import time
from dataclasses import dataclass
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")
STAT = Path("/proc/stat")

# Columns of /proc/stat's summary line, counted from its name: time that processes and interrupts took.
BUSY_COLUMNS = (1, 2, 3, 6, 7)
STOLEN_COLUMN = 8


@dataclass(frozen=True)
class PressureMark:
    """The running totals at one moment; None where the kernel doesn't count them.

    Attributes:
        seconds: The clock.
        own_seconds: CPU time of this process, all threads.
        stalled_seconds: Time in which at least one task of the machine waited for a CPU.
        busy_seconds: CPU time of everything on the machine, this process included.
        stolen_seconds: CPU time that the hypervisor gave to other guests.
    """

    seconds: float
    own_seconds: float
    stalled_seconds: float | None
    busy_seconds: float
    stolen_seconds: float


def parse_pressure(text: str) -> float:
    """Seconds in which at least one task waited for a CPU, from the text of /proc/pressure/cpu."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            values = dict(field.split("=") for field in fields)
            return int(values["total"]) / 1e6
    raise ValueError(f"no line 'some' in {text!r}")


def parse_stat(text: str, ticks_per_second: int = 100) -> tuple[float, float]:
    """Busy and stolen seconds, summed over the CPUs, from the text of /proc/stat."""
    fields = text.splitlines()[0].split()
    if fields[0] != "cpu" or len(fields) <= STOLEN_COLUMN:
        raise ValueError(f"no summary line with stolen time in {text[:80]!r}")
    busy = sum(int(fields[column]) for column in BUSY_COLUMNS)
    return busy / ticks_per_second, int(fields[STOLEN_COLUMN]) / ticks_per_second


def mark() -> PressureMark:
    """The totals now."""
    return PressureMark(
        time.perf_counter(),
        time.process_time(),
        parse_pressure(PRESSURE.read_text()) if PRESSURE.exists() else None,
        *(parse_stat(STAT.read_text()) if STAT.exists() else (0.0, 0.0)),
    )


def share(before: PressureMark, after: PressureMark) -> float | None:
    """Share (0..1) of the time between two marks in which others kept this process from a CPU.

    The kernel also counts the waiting of a process' own threads for each other, which is part of what it costs. So no
    more waiting counts than other processes ran. Stolen time comes on top.

    None where the kernel counts no pressure (not Linux, or built without it): nothing can be rejected there.
    """
    if before.stalled_seconds is None or after.stalled_seconds is None:
        return None
    elapsed = max(after.seconds - before.seconds, 1e-9)
    others = (after.busy_seconds - before.busy_seconds) - (after.own_seconds - before.own_seconds)
    waited = min(after.stalled_seconds - before.stalled_seconds, max(others, 0.0))
    return (waited + after.stolen_seconds - before.stolen_seconds) / elapsed
