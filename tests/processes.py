"""What a process and everything below it has open, and says of itself to others on the machine (Linux)."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"


def below(pid: int) -> set[int]:
    """The process and all that it has started, and that those have started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command's name stands in brackets and may hold anything.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids: set[int]) -> Iterator[tuple[int, str, int]]:
    """Process, address and port of every TCP socket that one of the processes listens on."""
    owner: dict[str, int] = {}
    for pid in pids:
        try:
            links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        owner.update({link[8:-1]: pid for link in links if link.startswith("socket:[")})
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and inode in owner:
                address, _, port = local.partition(":")
                yield owner[inode], _address(address), int(port, 16)


def _address(text: str) -> str:
    # Groups of four bytes, each in this machine's order.
    raw = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    found = ipaddress.ip_address(raw)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def command_line(pid: int) -> str:
    """What everybody on the machine can read of how a process was started."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below ``folder`` that hold ``secret``, in their bytes or their names."""
    wanted = secret.encode()
    found = []
    for path in folder.rglob("*"):
        try:
            if secret in path.name or (path.is_file() and wanted in path.read_bytes()):
                found.append(path)
        except OSError:
            continue
    return found
