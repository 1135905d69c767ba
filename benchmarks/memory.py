"""Memory of the idle server: `intern up` on the starter skills, everything loaded, one request answered.

Resident memory of the process and its children (the parser), as the kernel counts it.

    python -m benchmarks.memory
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from benchmarks import report

ROOT = Path(__file__).parents[1]
GOAL_MB = 1_200
KEY = "sk-intern-benchmark-000000000000"


def kilobytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in family(int(child)))]


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="intern-memory-"))
    shutil.copytree(ROOT / "skills", home / "skills")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {**os.environ, "INTERN_HOME": str(home), "INTERN_PORT": str(port), "INTERN_API_KEY": KEY}
    results: dict[str, dict[str, float]] = {}
    for start in ("first start", "second start"):
        began = time.perf_counter()
        command = [sys.executable, "-m", "intern.cli", "up"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
            client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"})
            while time.perf_counter() - began < 300:
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx2.TransportError:
                    if server.poll() is not None:
                        sys.exit("the server ended before it was ready")
                time.sleep(0.05)
            else:
                server.kill()
                sys.exit("the server was not ready after 300 s")
            ready = time.perf_counter() - began
            pids = family(server.pid)
            idle = sum(kilobytes(p, "Rss") for p in pids) / 1000
            body = {"input": "How many days of annual leave can I carry over into next year?"}
            client.post("/api/ask", json=body, timeout=120).raise_for_status()
            after = sum(kilobytes(p, "Rss") for p in family(server.pid)) / 1000
            results[start] = {"ready_s": ready, "idle_rss_mb": idle, "after_one_request_mb": after}
            server.send_signal(signal.SIGTERM)
            server.wait(40)
    shutil.rmtree(home, ignore_errors=True)
    rows = [[name, *(f"{v:.1f}" for v in r.values()), f"{GOAL_MB}"] for name, r in results.items()]
    report.table("Idle server", ["", "ready (s)", "idle (MB)", "after one request (MB)", "goal (MB)"], rows)
    claim = "Memory of the idle server, and how long it takes to be ready"
    report.write("memory", claim, {**results, "goal_mb": GOAL_MB})


if __name__ == "__main__":
    main()
