"""Two hosts on one machine: two network namespaces with a link between them, which can be cut and restored."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

from omnibind_core.errors import OmniBindError


class HostsError(OmniBindError, OSError):
    """Network namespaces cannot be made here."""


class Hosts:
    """Makes both; a context manager that removes them.

    Args:
        tag: Tells these two from others on this machine; the same tag names the same ones.

    Attributes:
        tag: The tag.
        commands: What to put before a command line so that it runs on the first and on the second host.

    Raises:
        HostsError: There is no ``ip``, or no permission.
    """

    def __init__(self, tag: str = "") -> None:
        self.tag = tag = tag or f"{os.getpid() % 100000}"
        self.names = (f"obh{tag}a", f"obh{tag}b")
        self.commands = tuple(("ip", "netns", "exec", name) for name in self.names)
        self._links = (f"obl{tag}a", f"obl{tag}b")

    def __enter__(self) -> Hosts:
        if shutil.which("ip") is None:
            raise HostsError("the command 'ip' is missing (apt install iproute2)")
        try:
            for name in self.names:
                _run("ip", "netns", "add", name)
            one, other = self._links
            ends = zip(self.names, self._links, strict=True)
            _run(
                "ip", "link", "add", one, "netns", self.names[0], "type", "veth", "peer", other, "netns", self.names[1]
            )
            for index, (name, link) in enumerate(ends, 1):
                _run("ip", "-n", name, "addr", "add", f"10.231.17.{index}/24", "dev", link)
                _run("ip", "-n", name, "link", "set", "lo", "up")
                _run("ip", "-n", name, "link", "set", link, "up")
                _run("ip", "-n", name, "route", "add", "224.0.0.0/4", "dev", link)
        except HostsError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self) -> None:
        """Cuts the link."""
        _run("ip", "-n", self.names[0], "link", "set", self._links[0], "down")

    def restore(self) -> None:
        """Restores the link."""
        _run("ip", "-n", self.names[0], "link", "set", self._links[0], "up")
        _run("ip", "-n", self.names[0], "route", "replace", "224.0.0.0/4", "dev", self._links[0])

    def sent(self, host: int) -> int:
        """Bytes that a host (0 or 1) has sent over the link."""
        path = f"/sys/class/net/{self._links[host]}/statistics/tx_bytes"
        return int(_run("ip", "netns", "exec", self.names[host], "cat", path))

    def close(self) -> None:
        """Removes both."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostsError(f"'{' '.join(command)}' failed: {done.stderr.strip()}")
    return done.stdout
