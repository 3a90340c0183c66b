"""``python -m benchmarks NAME[.PART] [options]``: runs a benchmark, or one part of it.

Prints its tables and writes them to benchmarks/results/<machine>/<NAME>.json. With ``--quick`` it
runs on small data to show that it works, and writes nothing unless ``--results`` names a folder.
"""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.harness import RESULTS, Report

BENCHMARKS = {
    "als": ("solvers", "floor"),
    "cleaning": ("steps", "crawlers", "bots", "filters"),
    "data": ("extract", "history", "matrix"),
    "gate": ("days",),
    "lists": ("bought_together",),
    "quality": ("models", "defaults", "warm", "metrics"),
    "serving": ("redis_lists", "api"),
    "whole_day": ("day",),
    "worker": ("launchers",),
}


def main(arguments: list[str]) -> None:
    names = [f"{name}.{part}" for name, parts in BENCHMARKS.items() for part in parts]
    if not arguments or arguments[0] not in [*BENCHMARKS, *names]:
        sys.exit(f"{__doc__}\nBenchmarks: {', '.join(BENCHMARKS)}\nParts: {', '.join(names)}")
    chosen, *rest = arguments
    benchmark, _, one_part = chosen.partition(".")
    parts = (one_part,) if one_part else BENCHMARKS[benchmark]
    options_text = f' ARGS="{" ".join(rest)}"' if rest else ""
    report = Report(benchmark, f"make bench NAME={chosen}{options_text}")
    runs = []
    for part in parts:
        module = importlib.import_module(f"benchmarks.{benchmark}.{part}")
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks {benchmark}.{part}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--quick", action="store_true", help="small data, a minute at most")
        parser.add_argument("--results", type=Path, help="another folder for the result files")
        module.add_arguments(parser)
        options = parser.parse_args(rest)
        runs.append((module.run, options))
    for run, options in runs:
        run(options, report)
    folder = options.results or (None if options.quick else RESULTS)
    if folder:
        print(f"\nThe tables are in {report.write(folder)}")


if __name__ == "__main__":
    main(sys.argv[1:])
