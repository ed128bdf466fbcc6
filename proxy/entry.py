"""What mitmproxy loads: the gate, connected to this VM's policy and audit log."""

import main
from audit import Audit
from dialer import Dialer
from gate import Gate
from policy import PolicyFile
from vault import Vault

addons = [Gate(PolicyFile(main.POLICY), Audit(main.AUDIT), Dialer(), Vault.from_descriptor(main.SECRETS))]
