"""Names the machine: a figure without it says nothing."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import psutil

# Instruction sets that decide how fast a CPU multiplies matrices.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "i8mm")


def describe() -> dict[str, Any]:
    """CPU, cores, memory and system, as a results file keeps them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name, flags = _cpu()
    return {
        "cpu": name,
        "cpus": cpus,
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
    }


def one_line(machine: dict[str, Any]) -> str:
    """The machine in a sentence's length."""
    flags = f", {' '.join(machine['flags'])}" if machine["flags"] else ""
    return f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_gib']} GiB, {machine['system']}{flags}"


def slug() -> str:
    """A folder's name for this machine."""
    machine = describe()
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cpus']} cpus".lower()).strip("-")


def _cpu() -> tuple[str, set[str]]:
    """Model name (with family and model number, as virtual machines hide the rest of the name) and flags."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine(), set()
    lines = (line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines}
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name, set(fields.get("flags", fields.get("Features", "")).split())
