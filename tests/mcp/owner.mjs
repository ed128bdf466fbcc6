// An owner with the official client: a repository, its VM's state directory, and the configuration
// that goes with them.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { temporaryFolder } from "./harness.mjs";

// What this machine lacks for a VM; "" when nothing.
export function missing() {
  try {
    fs.closeSync(fs.openSync("/dev/net/tun", "r+"));
  } catch (error) {
    return `/dev/net/tun cannot be opened: ${error.code}`;
  }
  return spawnSync("qemu-system-x86_64", ["--version"]).error ? "qemu-system-x86_64 is not installed" : "";
}

export class Owner {
  // `files` by name: the content of the repository, beside its agent-vm.toml.
  constructor(t, settings, files) {
    this.folder = temporaryFolder(t);
    this.repository = path.join(this.folder, "repo");
    this.name = "repo-sdk";
    fs.mkdirSync(this.repository);
    this.git("init", "-q", "-b", "main");
    this.git("config", "user.name", "Owner");
    this.git("config", "user.email", "owner@example.test");
    for (const [name, content] of Object.entries({ ...files, "agent-vm.toml": settings })) {
      const file = path.join(this.repository, name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, content);
    }
    this.git("add", ".");
    this.git("commit", "-q", "-m", "Begin");
  }

  git(...args) {
    return execFileSync("git", ["-C", this.repository, ...args], { encoding: "utf8" });
  }

  run(...args) {
    return spawnSync(process.env.AGENT_VM, ["--state-dir", path.join(this.folder, "state"), ...args], {
      cwd: this.repository,
      encoding: "utf8",
      env: { ...process.env, XDG_CONFIG_HOME: path.join(this.folder, "config"), LC_ALL: "C.UTF-8" },
    });
  }

  // The output of a command that must succeed.
  ok(...args) {
    const ran = this.run(...args);
    assert.equal(ran.status, 0, `agent-vm ${args.join(" ")}\n${ran.stdout}${ran.stderr}`);
    return ran.stdout;
  }

  async connect(t, server, options) {
    const config = JSON.parse(this.ok("config", this.name, "--json"));
    const token = fs.readFileSync(path.join(path.dirname(config.workspace_path), "mcp_token"), "utf8").trim();
    const client = new Client({ name: "owner", version: "1" });
    const endpoint = new URL(`http://${config.host}:${config.port}/servers/${server}/mcp`);
    await client.connect(
      new StreamableHTTPClientTransport(endpoint, {
        requestInit: { headers: { Authorization: `Bearer ${token}` } },
      }),
      options,
    );
    t.after(() => client.close());
    return client;
  }
}
