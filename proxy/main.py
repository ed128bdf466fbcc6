"""The proxy of one VM: mitmproxy in transparent mode, with nothing of its own but the gate.

Started only by the supervisor, in a jail. Descriptor 3 holds key and certificate of the VM's CA, 4
takes the audit log's records, 5 is the socket at which the guest's connections arrive,
6 holds the owner's secrets.
"""

import asyncio
import os
import resource
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

AUTHORITY = 3
AUDIT = 4
DOOR = 5
SECRETS = 6
CONFIGURATION = "/run/mitmproxy"  # memory of this jail
POLICY = "/policy/policy.json"
CERTIFICATES = "/certificates.pem"

# In the notation of mitmproxy's --set.
OPTIONS = {
    "mode": "transparent",
    "connection_strategy": "lazy",  # nothing is dialled before a request was judged
    "upstream_cert": "false",
    "rawtcp": "false",  # what is not HTTP ends here
    "stream_large_bodies": "64k",
    "ssl_verify_upstream_trusted_ca": CERTIFICATES,
    "confdir": CONFIGURATION,
    "termlog_verbosity": "warn",
}


def take_authority() -> None:
    # From its beginning, whichever proxy of this VM has read it before.
    content = os.pread(AUTHORITY, 65536, 0)
    os.close(AUTHORITY)
    if b"PRIVATE KEY" not in content or b"BEGIN CERTIFICATE" not in content:
        sys.exit("the VM's certificate authority cannot be read")
    os.makedirs(CONFIGURATION, mode=0o700)
    with open(f"{CONFIGURATION}/mitmproxy-ca.pem", "xb") as file:
        file.write(content)


def listen_at_the_door() -> None:
    """mitmproxy would make a socket of its own; ours was there before it and outlives it."""
    original = asyncio.start_server

    def start_server(handler, host=None, port=None, **more):
        return original(handler, sock=socket.socket(fileno=DOOR), **more)

    asyncio.start_server = start_server


def make_gate():
    from audit import Audit
    from dialer import Dialer
    from gate import Gate
    from policy import PolicyFile
    from vault import Vault

    return Gate(PolicyFile(POLICY), Audit(AUDIT), Dialer(), Vault.from_descriptor(SECRETS))


async def serve() -> None:
    """mitmproxy's core with the gate, and none of its thirty other addons: each would be asked at each step
    of each request, which was two fifths of what a request cost, and is more for a guest to talk to."""
    from mitmproxy import master, options
    from mitmproxy.addons import core, disable_h2c, errorcheck, next_layer, proxyserver, termlog, tlsconfig

    proxy = master.Master(options.Options())
    proxy.addons.add(
        termlog.TermLog(),
        core.Core(),
        disable_h2c.DisableH2C(),
        proxyserver.Proxyserver(),
        make_gate(),
        next_layer.NextLayer(),
        tlsconfig.TlsConfig(),
        errorcheck.ErrorCheck(),
    )
    proxy.options.set(*(f"{name}={value}" for name, value in OPTIONS.items()))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, proxy.shutdown)
    await proxy.run()


def main() -> None:
    # A crash must not leave the key in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_authority()
    listen_at_the_door()
    asyncio.run(serve())


if __name__ == "__main__":
    main()
