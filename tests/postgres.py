"""A PostgreSQL server for the tests: Debian's programs on a free loopback port and a folder of their own.

PostgreSQL refuses to run as root; then it runs as the user `postgres` that Debian's package makes.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    where = str(found[-1]) if found else shutil.which(name)
    if where is None:
        raise FileNotFoundError(f"PostgreSQL's {name} is not installed (Debian: apt-get install postgresql)")
    return where


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start a server in `folder`; yields the URL of its superuser without a database, and stops it at the end."""
    as_root = getpass.getuser() == "root"
    user = "postgres" if as_root else getpass.getuser()
    folder.mkdir(parents=True, exist_ok=True)
    if as_root:
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:  # the other user must be able to walk in
            if parent.stat().st_mode & 0o1 == 0:
                parent.chmod(parent.stat().st_mode | 0o11)

    def run(*command: str) -> None:
        prefix = ["runuser", "-u", "postgres", "--"] if as_root else []
        subprocess.run([*prefix, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    run(program("initdb"), "-D", data, "-U", user, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run(program("pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://{user}@127.0.0.1:{port}"
    finally:
        run(program("pg_ctl"), "-D", data, "-m", "immediate", "stop")
