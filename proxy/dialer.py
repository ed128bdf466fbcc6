"""Where a name leads, checked, and the only place from which the proxy learns an address.

The event loop's own resolution is replaced by this one, so that whatever opens a connection dials
an address that has been checked here, and no other: there is no second look-up that a server could
answer differently.
"""

import asyncio
import socket
import time

KEPT_SECONDS = 20
MOST_KEPT = 2048


class Refused(OSError):
    """Says why a name is not dialled."""


class Dialer:
    def __init__(self, look_up=None):
        self._look_up = look_up or self._ask_system
        self._pinned = {}  # name -> (until, addresses)

    def guard(self, loop) -> None:
        loop.getaddrinfo = self._getaddrinfo

    async def pin(self, name: str, refuses) -> list:
        """Resolves, refuses, remembers. `refuses` says of an address whether it may not be dialled."""
        until, addresses = self._pinned.get(name, (0, []))
        if until < time.monotonic():
            try:
                addresses = await self._look_up(name)
            except OSError as error:
                raise Refused(f"{name} does not resolve: {error}") from error
        acceptable = [address for address in addresses if not refuses(address)]
        if not acceptable:
            self._pinned.pop(name, None)
            raise Refused(f"{name} leads to {', '.join(addresses) or 'no IPv4 address'}, where no VM may go")
        if until < time.monotonic():
            if len(self._pinned) >= MOST_KEPT:
                self._pinned.pop(next(iter(self._pinned)))
            self._pinned[name] = (time.monotonic() + KEPT_SECONDS, acceptable)
        return acceptable

    async def _ask_system(self, name: str) -> list:
        found = await asyncio.get_running_loop().run_in_executor(
            None, socket.getaddrinfo, name, None, socket.AF_INET, socket.SOCK_STREAM
        )
        return list(dict.fromkeys(entry[4][0] for entry in found))

    async def _getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        _, addresses = self._pinned.get(host, (0, []))
        if not addresses:
            raise Refused(f"{host!r} was not allowed")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in addresses
        ]
