// A server of npm's is added to a VM that runs, by the line that its README gives: installed in the
// guest, through its proxy. Under emulation npm takes minutes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { loopTurn, missing, Owner } from "./owner.mjs";

const spec = "@modelcontextprotocol/server-memory";
const npx = ["--env", "MEMORY_FILE_PATH=/workspace/memory.jsonl", "--", "npx", "-y", spec];
// A stdio server of the repository's own: its tool tells which process it is.
const pidServer = `
import readline from "node:readline";
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  const results = {
    initialize: () => ({ protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "pid", version: "1" } }),
    "tools/list": () => ({ tools: [{ name: "pid", inputSchema: { type: "object" } }] }),
    "tools/call": () => ({ content: [{ type: "text", text: String(process.pid) }] }),
  };
  if (results[method]) console.log(JSON.stringify({ jsonrpc: "2.0", id, result: results[method]() }));
}
`;
const settings = `
[vm]
memory = "1G"
[mcp.servers.pid]
command = ["node", "/workspace/pid.mjs"]
`;
// Emulated, on a machine that others use, too.
const patience = { timeout: 600_000 };

async function call(client, name, args = {}) {
  const result = await client.callTool({ name, arguments: args }, undefined, patience);
  assert.notEqual(result.isError, true, JSON.stringify(result.content));
  return result.content[0].text;
}

// What npm's servers take on the disk of the guest, by name.
function installed(owner) {
  return owner.ok("exec", owner.name, "--", "sh", "-c", "ls -A /var/lib/agent-mcp/npm 2>/dev/null; true").trim();
}

function known(owner) {
  return JSON.parse(owner.ok("mcp", "list", owner.name, "--json")).map((server) => server.name);
}

test("M15: a server of npm's is added to a running VM by its npx line, and stays", { skip: missing() }, async (t) => {
  const owner = new Owner(t, settings, { "pid.mjs": pidServer });
  owner.ok("trust", "--yes");
  owner.ok("image", "build");
  owner.ok("create", "--branch", "sdk");
  const add = (...more) => owner.run("mcp", "add", "memory", owner.name, ...more, ...npx);
  const stopped = add();
  assert.equal(stopped.status, 3, stopped.stderr);
  assert.match(stopped.stderr, /agent-vm start repo-sdk/);
  owner.ok("start", owner.name);
  const other = await owner.connect(t, "pid", patience);
  const pid = await call(other, "pid");

  await t.test("the controls: refused by the policy, it says so, and leaves nothing", () => {
    for (const [verb, word, message, remedy] of [
      ["deny", "@npm", /its network policy refuses the package registry/, ["net", "allow", "--vm", owner.name, "@npm"]],
      ["mode", "off", /its network is off/, ["net", "mode", "allowlist", "--vm", owner.name]],
    ]) {
      owner.ok("net", verb, word, "--vm", owner.name);
      const refused = add();
      assert.equal(refused.status, 1, refused.stderr);
      assert.match(refused.stderr, message);
      assert.ok(refused.stderr.includes(`hint: agent-vm ${remedy.join(" ")}\n`), refused.stderr);
      owner.ok(...remedy);
    }
    assert.equal(installed(owner), "");
    assert.deepEqual(known(owner), ["workspace", "pid"]);
  });

  await t.test("interrupted, it leaves nothing, and nothing that runs", async () => {
    const child = spawn(process.env.AGENT_VM, owner.argv("mcp", "add", "memory", owner.name, ...npx), owner.options());
    // Until npm is there. It has a folder of its own from the beginning.
    owner.ok("exec", owner.name, "--", "sh", "-c",
      "until ls -d /var/lib/agent-mcp/npm/.new-* && pgrep -f '[n]pm install' >/dev/null; do sleep 0.2; done 2>/dev/null");
    child.kill("SIGINT");
    const [, signal] = await once(child, "exit");
    assert.equal(signal, "SIGINT");
    assert.equal(installed(owner), "");
    assert.notEqual(owner.run("exec", owner.name, "--", "pgrep", "-f", "[n]pm install").status, 0);
    assert.deepEqual(known(owner), ["workspace", "pid"]);
  });

  const added = add("--json");
  await loopTurn();
  assert.equal(added.status, 0, added.stderr);
  const report = JSON.parse(added.stdout);
  assert.match(report.package, /^@modelcontextprotocol\/server-memory@\d+\.\d+\.\d+$/);
  assert.ok(report.live && report.tools >= 9, added.stdout + added.stderr);
  const folder = `${report.package.replace("/", "+")}`;
  assert.equal(installed(owner), folder);

  await t.test("it works at once, and the other server has noticed nothing", async () => {
    const memory = await owner.connect(t, "memory", patience);
    const entities = [{ name: "garden", entityType: "place", observations: ["it rains"] }];
    await call(memory, "create_entities", { entities });
    assert.ok(fs.existsSync(path.join(owner.workspace(), "memory.jsonl")));
    assert.equal(await call(other, "pid"), pid);
  });

  await t.test("it survives a restart of the VM, without any network", async () => {
    owner.ok("net", "mode", "off", "--vm", owner.name);
    owner.ok("restart", owner.name);
    await loopTurn();
    const memory = await owner.connect(t, "memory", patience);
    assert.match(await call(memory, "search_nodes", { query: "garden" }), /it rains/);
  });

  await t.test("a disk that is thrown away: the command that installs it again", () => {
    const reset = owner.run("reset", owner.name, "--yes");
    assert.equal(reset.status, 0, reset.stderr);
    assert.ok(reset.stderr.includes(
      `mcp add memory repo-sdk --env MEMORY_FILE_PATH=/workspace/memory.jsonl -- npx -y --package ${report.package} mcp-server-memory`,
    ), reset.stderr);
    assert.equal(installed(owner), "");
  });

  await t.test("removed, its package goes; another server's stays", () => {
    // As if both were installed: what decides is what the configuration names.
    const stand = `cd /var/lib/agent-mcp && mkdir -p 'npm/${folder}/x' 'npm/other@1.0.0/node_modules/.bin'`;
    owner.ok("exec", owner.name, "--", "sh", "-c", stand);
    owner.ok("mcp", "add", "other", owner.name, "--", "/var/lib/agent-mcp/npm/other@1.0.0/node_modules/.bin/other");
    owner.ok("mcp", "remove", "memory", owner.name);
    assert.equal(installed(owner), "other@1.0.0");
    owner.ok("mcp", "remove", "other", owner.name);
    assert.equal(installed(owner), "");
  });
  owner.ok("destroy", "--purge", "--yes", owner.name);
});
