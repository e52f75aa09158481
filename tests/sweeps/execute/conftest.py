"""Two hosts on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """Network, process and host name space of its own."""

    name: str
    address: str
    network: str

    @property
    def command(self) -> list[str]:
        """Words before a command that run it there."""
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--uts", "--mount-proc", "sh", "-c"]
        return [
            "nsenter",
            f"--net=/run/netns/{self.network}",
            *apart,
            f'hostname {self.name}; exec "$@"',
            "sh",
        ]

    def link(self, state: str) -> None:
        """Set its end of the wire ``up`` or ``down``."""
        ip("-n", self.network, "link", "set", "wire", state)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    """Two hosts by name, ``here`` and ``there``, and a wire between them; needs root."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and ip")
    both = [
        Host("here", "10.213.7.1", f"distlaw-a-{os.getpid()}"),
        Host("there", "10.213.7.2", f"distlaw-b-{os.getpid()}"),
    ]
    try:
        for host in both:
            ip("netns", "add", host.network)
            ip("-n", host.network, "link", "set", "lo", "up")
        here, there = (host.network for host in both)
        ip("-n", here, "link", "add", "wire", "type", "veth", "peer", "wire", "netns", there)
        for host in both:
            ip("-n", host.network, "addr", "add", f"{host.address}/24", "dev", "wire")
            host.link("up")
    except subprocess.CalledProcessError:
        pytest.skip("no network name spaces here")
    yield {host.name: host for host in both}
    for host in both:
        ip("netns", "del", host.network)
