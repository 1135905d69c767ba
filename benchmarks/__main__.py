"""Runs every benchmark that this machine has the data for, one after the other: python -m benchmarks [NAME...]"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.report import DATA

# name -> what it needs beside the project
ALL = {
    "routing": "clinc150",
    "retrieval": "bank-kb",
    "ingestion": "bank-kb",
    "chunking": "chunking",
    "redaction": "pii",
    "training": "clinc150",
    "banking": "clinc150",
    "snips": "snips",
    "month": "snips",
    "overhead": None,
    "memory": None,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*ALL, []], help="which; otherwise all")
    failed = []
    for name in parser.parse_args().name or ALL:
        needs = ALL[name]
        if needs is not None and not (DATA / needs).is_dir():
            print(f"== {name}: left out, since {needs} is not in {DATA}", flush=True)
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
