// `agent-vm mcp VM`: an MCP server over standard input and output in front of a gateway. The VM's
// place is taken by its directory and a gateway on its port, which is all that the bridge sees of it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { once } from "node:events";
import * as v2 from "@modelcontextprotocol/client";
import { StdioClientTransport as StdioV2 } from "@modelcontextprotocol/client/stdio";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Gateway, fixture, until } from "./harness.mjs";

const program = process.env.AGENT_VM;

// A VM's directory, and its gateway.
async function machine(t) {
  const gateway = new Gateway(t);
  const repository = path.join(gateway.folder, "repo");
  const git = (...args) => execFileSync("git", ["-C", repository, ...args], { stdio: "pipe" });
  fs.mkdirSync(repository);
  git("init", "-q", "-b", "main");
  git("-c", "user.name=x", "-c", "user.email=x@example.test", "commit", "-q", "--allow-empty", "-m", "x");
  const state = path.join(gateway.folder, "vms");
  const environment = { ...process.env, HOME: gateway.folder };
  const vm = JSON.parse(execFileSync(program,
    ["--state-dir", state, "create", repository, "--name", "vm", "--json"], { env: environment, encoding: "utf8" }));
  gateway.config.port = vm.port;
  gateway.writeToken(fs.readFileSync(path.join(state, "vm", "mcp_token"), "utf8").trim());
  return { gateway, environment, argv: (...more) => ["--state-dir", state, "mcp", ...more] };
}

function transport(t, vm, ...more) {
  const stdio = new StdioClientTransport({ command: program, args: vm.argv("vm", ...more), env: vm.environment });
  return stdio;
}

async function connect(t, vm, server) {
  const client = new Client({ name: "v1", version: "1" }, { capabilities: { sampling: {} } });
  client.setRequestHandler(CreateMessageRequestSchema, () => ({
    model: "m", role: "assistant", content: { type: "text", text: "sampled" },
  }));
  const stdio = transport(t, vm, server);
  await client.connect(stdio);
  t.after(() => client.close());
  return { client, pid: stdio.pid };
}

async function call(client, name, args = {}) {
  return (await client.callTool({ name, arguments: args })).content[0].text;
}

test("a client that knows only stdio works, is asked and told, and its token is in no argument", async (t) => {
  const vm = await machine(t);
  await vm.gateway.start();
  const { client, pid } = await connect(t, vm, "fixture");
  assert.equal(client.getServerVersion().name, "fixture");
  assert.equal(await call(client, "echo", { text: "héllo\n" }), "héllo\n");
  assert.match(await call(client, "test_sampling", { prompt: "x" }), /sampled/);
  const changed = new Promise((resolve) => { client.fallbackNotificationHandler = async (n) => resolve(n.method); });
  await call(client, "test_trigger_tool_change");
  assert.equal(await changed, "notifications/tools/list_changed");
  for (const file of ["cmdline", "environ"]) {
    assert.ok(!fs.readFileSync(`/proc/${pid}/${file}`, "utf8").includes(vm.gateway.token), file);
  }
});

test("it survives that the VM is stopped, started, and forgets its sessions", async (t) => {
  const vm = await machine(t);
  await vm.gateway.start();
  const { client } = await connect(t, vm, "fixture");
  const held = call(client, "hold").then(() => "answered", (error) => error.message);
  assert.equal(await call(client, "echo", { text: "one" }), "one");
  await vm.gateway.stop("SIGKILL");
  assert.match(await held, /not repeated/);
  // Asked while nobody is there: answered when somebody is.
  const waiting = call(client, "echo", { text: "two" });
  await vm.gateway.start();
  assert.equal(await waiting, "two");
  await vm.gateway.stop("SIGKILL");
  fs.rmSync(vm.gateway.config.state_directory, { recursive: true });
  await vm.gateway.start();
  assert.equal(await call(client, "echo", { text: "three" }), "three");
});

test("both revisions pass, and a cancellation arrives", async (t) => {
  const vm = await machine(t);
  const lines = path.join(vm.gateway.folder, "lines");
  vm.gateway.config.servers.fixture.command = [fixture, "--lines", lines];
  await vm.gateway.start();
  const client = new v2.Client({ name: "v2", version: "1" },
    { capabilities: { elicitation: {} }, versionNegotiation: { mode: { pin: "2026-07-28" } } });
  client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { name: "Ada" } }));
  await client.connect(new StdioV2({ command: program, args: vm.argv("vm", "fixture"), env: vm.environment }));
  t.after(() => client.close());
  const result = await client.callTool({ name: "test_input_required_result_elicitation", arguments: {} });
  assert.equal(result.content[0].text, "Hello, Ada!");
  const abort = new AbortController();
  const held = client.callTool({ name: "hold", arguments: {} }, { signal: abort.signal }).catch(() => "aborted");
  await until(() => fs.readFileSync(lines, "utf8").includes('"hold"'), "the call has arrived");
  abort.abort();
  assert.equal(await held, "aborted");
  await until(() => fs.readFileSync(lines, "utf8").includes("notifications/cancelled"), "so has its cancellation");
});

test("it ends within a second of the end of its input, and prints nothing but the protocol", async (t) => {
  const vm = await machine(t);
  await vm.gateway.start();
  const child = spawn(program, vm.argv("vm", "fixture"), { env: vm.environment, stdio: ["pipe", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (bytes) => (text += bytes));
  const say = (message) => child.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
  say({ id: 1, method: "initialize", params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "x", version: "1" } } });
  say({ method: "notifications/initialized" });
  child.stdin.write("this is not JSON\n");
  say({ id: 2, method: "tools/call", params: { name: "echo", arguments: { text: "hi" } } });
  say({ id: 3, method: "tools/call", params: { name: "hold", arguments: {} } });
  await until(() => text.includes('"hi"'), "the echo is there");
  const ended = Date.now();
  child.stdin.end();
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
  assert.ok(Date.now() - ended < 1500, `${Date.now() - ended} ms`);
  const ids = text.trim().split("\n").map((line) => JSON.parse(line).id);
  assert.deepEqual(ids.slice(0, 3), [1, null, 2]);
  // It took its session with it.
  await until(async () => (await vm.gateway.details()).fixture.sessions === 0, "no session is left");
});

test("a VM that does not answer is said so, within --timeout", async (t) => {
  const vm = await machine(t);
  const child = spawn(program, ["--timeout", "1", ...vm.argv("vm")], { env: vm.environment, stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill());
  child.stdin.write('{"jsonrpc":"2.0","id":"a","method":"ping"}\n');
  const [bytes] = await once(child.stdout, "data");
  const message = JSON.parse(bytes);
  assert.equal(message.id, "a");
  assert.match(message.error.message, /agent-vm start vm/);
  child.stdin.end();
  await once(child, "exit");
});
