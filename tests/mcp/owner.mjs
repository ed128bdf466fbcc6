// An owner with the official client: a repository, its VM's state directory, and the configuration
// that goes with them.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { temporaryFolder } from "./harness.mjs";

// What this machine lacks for a VM; false when nothing.
export function missing() {
  try {
    fs.closeSync(fs.openSync("/dev/net/tun", "r+"));
  } catch (error) {
    return `/dev/net/tun cannot be opened: ${error.code}`;
  }
  return spawnSync("qemu-system-x86_64", ["--version"]).error ? "qemu-system-x86_64 is not installed" : false;
}

// Commands stop node's event loop. Connections that closed meanwhile have to be noticed before the next request, or it
// would take one of them.
export async function loopTurn() {
  for (let i = 0; i < 2; i++) await new Promise((resolve) => setImmediate(resolve));
}

// The reference servers, which an image can hold: those that are installed into a running VM are in npm_test.
export const npmServers = {
  everything: { spec: "@modelcontextprotocol/server-everything", command: ["mcp-server-everything"] },
  filesystem: { spec: "@modelcontextprotocol/server-filesystem", command: ["mcp-server-filesystem", "/workspace"] },
  memory: { spec: "@modelcontextprotocol/server-memory", command: ["mcp-server-memory"] },
};
const specs = Object.values(npmServers).map((server) => server.spec);
export const npmSettings = `
[vm]
memory = "1G"
[image]
npm = ${JSON.stringify(specs)}
${Object.entries(npmServers).map(([name, { command }]) => `[mcp.servers.${name}]\ncommand = ${JSON.stringify(command)}`).join("\n")}
[mcp.servers.memory.env]
MEMORY_FILE_PATH = "/workspace/memory.jsonl"
`;
export const npmImage = ["image", "build", ...specs.flatMap((spec) => ["--npm", spec])];

export class Owner {
  // `files` by name: the content of the repository, beside its agent-vm.toml.
  constructor(t, settings, files) {
    // Before the folder goes, without which nobody would find a VM that a failed test leaves.
    t.after(() => this.run("destroy", "--purge", "--yes", this.name));
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

  argv(...args) {
    return ["--state-dir", path.join(this.folder, "state"), ...args];
  }

  options() {
    return {
      cwd: this.repository,
      env: { ...process.env, XDG_CONFIG_HOME: path.join(this.folder, "config"), LC_ALL: "C.UTF-8" },
    };
  }

  run(...args) {
    return spawnSync(process.env.AGENT_VM, this.argv(...args), { ...this.options(), encoding: "utf8" });
  }

  // The output of a command that must succeed.
  ok(...args) {
    const ran = this.run(...args);
    assert.equal(ran.status, 0, `agent-vm ${args.join(" ")}\n${ran.stdout}${ran.stderr}`);
    return ran.stdout;
  }

  workspace() {
    return JSON.parse(this.ok("config", this.name, "--json")).workspace_path;
  }

  // Where a server of the VM is, and what its clients have to send along.
  endpoint(server) {
    const config = JSON.parse(this.ok("config", this.name, "--json"));
    const token = fs.readFileSync(path.join(path.dirname(config.workspace_path), "mcp_token"), "utf8").trim();
    return {
      url: new URL(`http://${config.host}:${config.port}/servers/${server}/mcp`),
      headers: { Authorization: `Bearer ${token}` },
    };
  }

  async connect(t, server, options, client = new Client({ name: "owner", version: "1" })) {
    const { url, headers } = this.endpoint(server);
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }), options);
    t.after(() => client.close());
    return client;
  }
}
