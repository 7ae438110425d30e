"""What all cases share: running a command and looking at it, comparing several, and printing."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = REPOSITORY / "target/release/cargo-lambda-image"
MB = 1_000_000


class Run:
    """One finished command: seconds on the wall and of CPU, the peak memory of its largest process, bytes to disk.

    The kernel counts this script's own memory at the moment of the fork as the child's, so the script stays small.
    """

    def __init__(self, command, **options):
        command = [str(word) for word in command]
        with open(os.devnull, "rb") as nothing:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, stdin=nothing, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
            errors = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            self.wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"`{' '.join(command)}` failed with {process.returncode}:\n{errors.decode(errors='replace')}")
        self.cpu = usage.ru_utime + usage.ru_stime
        # Of a registry that it talked to: see `Registry.measured`.
        self.registry_cpu = self.sent = None
        self.peak = usage.ru_maxrss * 1024
        self.written = usage.ru_oublock * 512


def interleaved(commands, count):
    """Runs the commands in turn, so that a machine that changes its speed changes it for all.

    Each turn begins with another, so that none always comes after the one that leaves the most behind.
    """
    runs = {name: [] for name in commands}
    order = list(commands)
    for _ in range(count):
        for name in order:
            runs[name].append(commands[name]())
        order.append(order.pop(0))
    return runs


def compare(runs, limits):
    """Prints a row a command; true if ours is within `limits`, its shares of the others' time.

    A ratio is that of runs beside each other, since the machine may have changed its speed between others.
    """
    rows, met = [], True
    with_registry = any(run.registry_cpu is not None for run in runs["ours"])
    for name, some in runs.items():
        walls = [run.wall for run in some]
        ratio = statistics.median(ours.wall / run.wall for ours, run in zip(runs["ours"], some))
        verdict = ""
        if name in limits:
            met &= ratio < limits[name]
            verdict = f"{'met' if ratio < limits[name] else 'MISSED'}: below {limits[name]:.3f}"
        rows.append([name, f"{median(some, 'wall'):.3f} ({min(walls):.3f} - {max(walls):.3f})",
                     f"{median(some, 'cpu'):.3f}", f"{max(run.peak for run in some) / MB:.0f}",
                     f"{median(some, 'written') / MB:.1f}", *(of_registry(some) if with_registry else []),
                     "" if name == "ours" else f"{ratio:.3f}", verdict])
    registry = ["sent MB", "registry CPU s", "its share"] if with_registry else []
    table(["", "wall s", "CPU s", "peak MB", "written MB", *registry, "ours / this", ""], rows)
    return met


def of_registry(runs):
    """What went to and from the registry, the CPU time it took, and what part that is of all."""
    if any(run.registry_cpu is None for run in runs):
        return ["", "", ""]
    share = statistics.median(run.registry_cpu / max(run.registry_cpu + run.cpu, 0.001) for run in runs)
    return [f"{median(runs, 'sent') / MB:.1f}", f"{median(runs, 'registry_cpu'):.2f}", f"{share:.0%}"]


def median(runs, field):
    return statistics.median(getattr(run, field) for run in runs)


def table(header, rows):
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def architecture():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def warm(path):
    """Brings a file into the page cache: every contender reads from memory."""
    with open(path, "rb", buffering=0) as file:
        while file.read(MB):
            pass


def remove(path):
    if path.exists():
        shutil.rmtree(path)


def check(command, **options):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, **options)


def cargo(*arguments):
    command = ["cargo", *map(str, arguments)]
    return subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True).stdout


def say(text):
    print(f"\n{text}", flush=True)
