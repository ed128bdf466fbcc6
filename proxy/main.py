"""The proxy of one VM: mitmproxy in transparent mode, with nothing of its own but the gate.

Started only by the supervisor, in a jail. Descriptor 3 holds key and certificate of the VM's CA, 4
takes the audit log's records, 5 is the socket at which the guest's connections arrive,
6 holds the owner's secrets.
"""

import asyncio
import os
import resource
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

OPTIONS = {
    "connection_strategy": "lazy",  # nothing is dialled before a request was judged
    "upstream_cert": "false",
    "rawtcp": "false",  # what is not HTTP ends here
    "onboarding": "false",  # no pages of mitmproxy's own
    "block_global": "false",
    "stream_large_bodies": "64k",
    "ssl_verify_upstream_trusted_ca": CERTIFICATES,
    "confdir": CONFIGURATION,
    "flow_detail": "0",
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


def main() -> None:
    # A crash must not leave the key in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    take_authority()
    from mitmproxy.tools.main import mitmdump

    listen_at_the_door()
    arguments = ["--mode", "transparent"]
    for name, value in OPTIONS.items():
        arguments += ["--set", f"{name}={value}"]
    gate = os.path.join(os.path.dirname(os.path.abspath(__file__)), "entry.py")
    mitmdump(arguments + ["--scripts", gate])


if __name__ == "__main__":
    main()
