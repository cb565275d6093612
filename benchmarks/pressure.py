"""How busy the machine was with something else meanwhile: Linux's pressure stall information and stolen time."""

import time
from dataclasses import dataclass
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")
STAT = Path("/proc/stat")


@dataclass(frozen=True)
class PressureMark:
    """The kernel's running totals at one moment; None where the kernel doesn't count them."""

    seconds: float
    stalled_seconds: float | None
    stolen_seconds: float | None


def parse_pressure(text: str) -> float:
    """Seconds in which at least one task waited for a CPU, from the text of /proc/pressure/cpu."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            values = dict(field.split("=") for field in fields)
            return int(values["total"]) / 1e6
    raise ValueError(f"no line 'some' in {text!r}")


def parse_stolen(text: str, ticks_per_second: int = 100) -> float:
    """Seconds that the hypervisor gave to other guests, summed over the CPUs, from the text of /proc/stat."""
    fields = text.splitlines()[0].split()
    if fields[0] != "cpu" or len(fields) < 9:
        raise ValueError(f"no summary line with stolen time in {text[:80]!r}")
    return int(fields[8]) / ticks_per_second


def mark() -> PressureMark:
    """The totals now."""
    return PressureMark(
        time.perf_counter(),
        parse_pressure(PRESSURE.read_text()) if PRESSURE.exists() else None,
        parse_stolen(STAT.read_text()) if STAT.exists() else None,
    )


def share(before: PressureMark, after: PressureMark) -> float | None:
    """Share (0..1) of the time between two marks in which somebody waited for a CPU or a CPU was taken away.

    None where the kernel counts no pressure (not Linux, or built without it): nothing can be rejected there.
    """
    if before.stalled_seconds is None or after.stalled_seconds is None:
        return None
    elapsed = max(after.seconds - before.seconds, 1e-9)
    disturbed = after.stalled_seconds - before.stalled_seconds
    if before.stolen_seconds is not None and after.stolen_seconds is not None:
        disturbed += after.stolen_seconds - before.stolen_seconds
    return disturbed / elapsed
