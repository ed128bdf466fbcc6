"""What the measurements share: a VM on a repository of its own, debvm beside it, and the report."""
import argparse, json, os, platform, shutil, socket, statistics, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))


def arguments(documentation, pairs=10):
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agent-vm", default=os.path.join(here, "../build/release/bin/agent-vm"))
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--json", action="store_true")
    return parser


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*argv, check=True, **more):
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


def seconds(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def machine_arguments(accelerator, cpus):
    """QEMU's, for a machine with the processors that a VM of agent-vm has."""
    model = "host" if accelerator == "kvm" else "max"
    return ["-machine", f"q35,accel={accelerator}", "-cpu", model, "-smp", str(cpus)]


class Folder:
    """Of one measurement, removed at its end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="agent-vm-bench-")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def __truediv__(self, name):
        return os.path.join(self.path, name)


class Vms:
    """VMs of one small repository, in a state directory of their own."""

    def __init__(self, program, folder):
        self.program, self.folder, self.names = os.path.abspath(program), folder, []

    def __enter__(self):
        repository = self.folder / "repo"
        run("git", "init", "-q", "-b", "main", repository)
        with open(repository + "/README.md", "w", encoding="utf-8") as readme:
            readme.write("hello\n")
        run("git", "-C", repository, "add", "-A")
        run("git", "-C", repository, "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qm", "first")
        return self

    def __exit__(self, *_):
        for name in self.names:
            self.agent_vm("stop", "--force", name, check=False)
            self.agent_vm("destroy", name, "--purge", "--yes", check=False)

    def agent_vm(self, *argv, check=True):
        return run(self.program, "--state-dir", self.folder / "state", *argv, check=check)

    def create(self, name, *flags):
        self.agent_vm("create", self.folder / "repo", "--name", name, "--memory", "1G", *flags)
        self.names.append(name)

    def start_and_use(self, name, *flags):
        """What a start is for: until the first command in the workspace has answered."""
        self.agent_vm("start", *flags, name)
        assert "hello" in self.agent_vm("exec", name, "--", "cat", "/workspace/README.md")

    def guest(self, name, script):
        return self.agent_vm("exec", name, "--", "sh", "-ec", script)

    def facts(self, name):
        return json.loads(self.agent_vm("status", name, "--json"))

    def processes(self, name):
        status = self.facts(name)
        return [status["pid"]] + [process["pid"] for process in status["processes"].values()]

    def ssh(self, name):
        config = json.loads(self.agent_vm("config", name, "--json"))
        return ["ssh", "-F", "/dev/null", "-i", config["ssh_key_path"], "-o", "StrictHostKeyChecking=no",
                "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "LogLevel=ERROR",
                "-p", str(config["ssh_port"]), "dev@127.0.0.1"]


class Debvm:
    """Debian's tool for a throw-away VM, with the same processor and memory. Made of this machine's apt sources."""

    def __init__(self, folder, cpus, accelerator, packages=()):
        self.folder, self.machine, self.process = folder, machine_arguments(accelerator, cpus), None
        self.image = folder / "debvm.ext4"
        say("making debvm's image")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "debvm-key")
        sources = [path for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources")
                   if os.path.exists(path)]
        include = [f"--include={','.join(packages)}"] if packages else []
        release = run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
        run("debvm-create", "-r", release, "-k", folder / "debvm-key.pub", "-o", self.image, "-z", "3G", "--",
            *include, *sources, cwd=folder.path)

    def start(self, *more):
        """Until sshd has said its banner: slirp takes the connection long before."""
        self.port = free_port()
        self.process = subprocess.Popen(
            ["debvm-run", "-i", self.image, "-s", str(self.port), "--", "-snapshot", *self.machine,
             "-machine", "memory-backend=ram", "-object", "memory-backend-memfd,id=ram,size=1G", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while True:
            if self.process.poll() is not None:
                sys.exit("debvm-run ended by itself")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            time.sleep(0.05)

    def ssh(self, command):
        return run("ssh", "-F", "/dev/null", "-i", self.folder / "debvm-key", "-o", "StrictHostKeyChecking=no",
                   "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", str(self.port),
                   "root@127.0.0.1", command)

    def qemu(self):
        for pid in run("pgrep", "-s", str(self.process.pid)).split():
            with open(f"/proc/{pid}/comm", encoding="utf-8") as name:
                if name.read().startswith("qemu-system"):
                    return int(pid)
        sys.exit("debvm-run has no QEMU")

    def stop(self):
        if self.process is None:
            return
        os.killpg(self.process.pid, 15)
        self.process.wait()
        self.process = None


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "times": len(values)}


def machine(accelerator):
    return {"machine": platform.platform(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
            "qemu": run("qemu-system-x86_64", "--version").splitlines()[0], "accelerator": accelerator}


def report(as_json, about, figures, ratios, unit="s"):
    """`figures`: name -> values; `ratios`: (id, what, value, bound), a bound like "<= 0.25" or ">= 10"."""
    if as_json:
        print(json.dumps({"machine": about, "unit": unit, "figures": {w: summary(v) for w, v in figures.items()},
                          "ratios": [dict(zip(("id", "what", "value", "goal"), r)) for r in ratios]}, indent=2))
        return
    for key, value in about.items():
        print(f"{key + ':':13}{value}")
    for what, values in figures.items():
        figure = summary(values)
        print(f"{what:36} {figure['median']:8.3f} {unit}   ({figure['min']:.3f} to {figure['max']:.3f}, "
              f"{figure['times']} times)")
    for row, what, value, goal in ratios:
        bound = float(goal.split()[1])
        reached = value <= bound if goal.startswith("<=") else value >= bound
        print(f"{row:4} {what:54} {value:7.3f}   goal {goal}: {'reached' if reached else 'not reached'}")
