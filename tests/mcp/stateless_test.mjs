// Revision 2026-07-28 beside the earlier ones, on the same address.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import * as v2 from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Gateway, childrenOf, fixture, messagesOf, openStream, textOf, until } from "./harness.mjs";

const all = { sampling: {}, elicitation: {}, roots: {} };

// A request as this revision wants it; `change` may spoil it.
function request(gateway, id, method, params = {}, { capabilities = all, change = {}, meta = {} } = {}) {
  const name = params.name ?? params.uri;
  const headers = {
    "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method,
    ...(name ? { "Mcp-Name": name } : {}), ...change,
  };
  const body = {
    jsonrpc: "2.0", id, method,
    params: {
      ...params,
      _meta: {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
        ...meta,
      },
    },
  };
  return { headers: gateway.headers(headers), body: JSON.stringify(body) };
}
const target = "/servers/fixture/mcp";
async function send(gateway, ...args) {
  const { headers, body } = request(gateway, ...args);
  const response = await gateway.request("POST", target, headers, body);
  return { status: response.status, headers: response.headers, message: messagesOf(response).at(-1) };
}
const call = (gateway, id, name, extra = {}, options = {}) =>
  send(gateway, id, "tools/call", { name, arguments: {}, ...extra }, options);
async function open(gateway, ...args) {
  const { headers, body } = request(gateway, ...args);
  return openStream(gateway, "POST", target, headers, body);
}

async function start(t, ...options) {
  const gateway = new Gateway(t);
  gateway.config.servers.fixture.command = [fixture, ...options];
  return gateway.start();
}

test("both generations of clients on one address, chosen by the message", async (t) => {
  const gateway = await start(t);
  const session = await gateway.session();
  const found = await send(gateway, 1, "server/discover");
  assert.deepEqual(found.message.result.supportedVersions,
    ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]);
  assert.equal(found.headers["mcp-session-id"], undefined);
  const results = await Promise.all([
    call(gateway, 1, "echo", { arguments: { text: "new" } }),
    session.call("echo", { text: "old" }),
    call(gateway, 1, "echo", { arguments: { text: "new, too" } }),
  ]);
  assert.equal(textOf(results[0].message), "new");
  assert.equal(textOf(results[1]), "old");
  assert.equal(textOf(results[2].message), "new, too");
  // The same user agent and connection settings; only the message differs.
  assert.equal((await send(gateway, 5, "ping")).status, 404);
  assert.equal((await session.send({ jsonrpc: "2.0", id: 5, method: "ping" })).status, 200);
});

test("what the headers say must be what the body says", async (t) => {
  const gateway = await start(t);
  const refused = async (change, code) => {
    const answer = await call(gateway, 9, "echo", {}, { change });
    assert.equal(answer.status, 400);
    assert.equal(answer.message.error.code, code);
    assert.equal(answer.message.id, 9);
  };
  await refused({ "Mcp-Name": "other" }, -32020);
  await refused({ "Mcp-Method": "tools/list" }, -32020);
  await refused({ "MCP-Protocol-Version": "2025-11-25" }, -32020);
  await refused({ "MCP-Protocol-Version": "2027-01-01" }, -32020);
  assert.deepEqual(childrenOf(gateway.process.pid), []);
  assert.equal((await call(gateway, 9, "echo")).status, 200);
});

test("a question becomes input_required; its state holds once, and only for its request", async (t) => {
  const gateway = await start(t);
  const name = "test_input_required_result_elicitation";
  const asked = (await call(gateway, 1, name)).message.result;
  assert.equal(asked.resultType, "input_required");
  assert.equal(asked.inputRequests.user_name.method, "elicitation/create");
  const retry = (id, state, extra = {}) =>
    call(gateway, id, name, {
      inputResponses: { user_name: { action: "accept", content: { name: "Ada" } } }, requestState: state, ...extra,
    });
  const flipped = asked.requestState.replace(/.$/, (c) => (c === "0" ? "1" : "0"));
  assert.equal((await retry(2, flipped)).message.error.code, -32602);
  assert.match((await retry(3, asked.requestState, { arguments: { x: 1 } })).message.error.message, /another request/);
  assert.equal(textOf((await retry(4, asked.requestState)).message), "Hello, Ada!");
  assert.match((await retry(5, asked.requestState)).message.error.message, /ended|used/);
});

test("two clients are asked at once, and neither gets the other's question", async (t) => {
  const gateway = await start(t);
  const names = ["test_input_required_result_sampling", "test_input_required_result_list_roots"];
  // A server that was seen asking gets a process for each call that it may ask about.
  await call(gateway, 0, "test_input_required_result_elicitation");
  const asked = await Promise.all(names.map((name) => call(gateway, 1, name)));
  assert.ok(asked[0].message.result.inputRequests.capital_question);
  assert.ok(asked[1].message.result.inputRequests.client_roots);
  const finished = await Promise.all(
    names.map((name, i) =>
      call(gateway, 10 + i, name, {
        requestState: asked[i].message.result.requestState,
        inputResponses: i === 0
          ? { capital_question: { role: "assistant", content: { type: "text", text: "Paris" }, model: "m" } }
          : { client_roots: { roots: [{ uri: "file:///r" }] } },
      }),
    ),
  );
  assert.match(textOf(finished[0].message), /Paris/);
  assert.match(textOf(finished[1].message), /file:\/\/\/r/);
});

test("a client that goes away has cancelled; in the earlier revisions it has not", async (t) => {
  const gateway = new Gateway(t);
  const lines = path.join(gateway.folder, "lines");
  gateway.config.servers.fixture.command = [fixture, "--lines", lines];
  await gateway.start();
  const cancelled = () => (fs.readFileSync(lines, "utf8").match(/notifications\/cancelled/g) ?? []).length;
  // Negative control: the same disconnect in a session.
  const session = await gateway.session();
  const held = await openStream(gateway, "POST", target, gateway.headers({ "Mcp-Session-Id": session.id }),
    JSON.stringify({ jsonrpc: "2.0", id: "h", method: "tools/call", params: { name: "hold", arguments: {} } }));
  held.close();
  await session.call("echo");
  assert.equal(cancelled(), 0);
  const stream = await open(gateway, 1, "tools/call", { name: "hold", arguments: {} });
  assert.match(stream.headers["content-type"], /event-stream/);
  stream.close();
  await until(() => cancelled() === 1, "the cancellation reached the server");
  assert.equal((await call(gateway, 2, "echo")).status, 200);
});

test("changes reach those who listen, with the id of their subscription", async (t) => {
  const gateway = await start(t);
  const listen = await open(gateway, "sub", "subscriptions/listen", {
    notifications: { toolsListChanged: true, resourceSubscriptions: ["test://watched-resource"] },
  });
  const next = async () => JSON.parse((await listen.next()).data);
  assert.equal((await next()).method, "notifications/subscriptions/acknowledged");
  for (const name of ["test_trigger_prompt_change", "test_trigger_tool_change", "test_trigger_resource_update"]) {
    await call(gateway, 1, name);
  }
  const changes = [await next(), await next()];
  assert.deepEqual(changes.map((change) => change.method),
    ["notifications/tools/list_changed", "notifications/resources/updated"]);
  for (const change of changes) {
    assert.equal(change.params._meta["io.modelcontextprotocol/subscriptionId"], "sub");
  }
  // It outlives the server's process, which is told again what to watch.
  const [pid] = childrenOf(gateway.process.pid);
  process.kill(pid, "SIGKILL");
  await until(() => childrenOf(gateway.process.pid).some((child) => child !== pid), "a new process");
  await call(gateway, 2, "test_trigger_resource_update");
  assert.equal((await next()).method, "notifications/resources/updated");
  const stopped = gateway.stop();
  assert.equal((await next()).result.resultType, "complete");
  await stopped;
});

test("a killed server: calls in flight fail at once, are not repeated, and the next one works", async (t) => {
  const gateway = new Gateway(t);
  const log = path.join(gateway.folder, "calls");
  gateway.config.servers.fixture.command = [fixture, "--log", log];
  await gateway.start();
  const held = call(gateway, 1, "hold");
  await call(gateway, 2, "echo");
  await until(() => fs.readFileSync(log, "utf8").split("\n").includes("hold"), "the call in the server's log");
  const [pid] = childrenOf(gateway.process.pid);
  process.kill(pid, "SIGKILL");
  const failure = await held;
  assert.match(failure.message.error.message, /killed by signal 9/);
  assert.equal(failure.message.id, 1);
  assert.equal((await call(gateway, 3, "echo")).status, 200);
  assert.equal(fs.readFileSync(log, "utf8").split("\n").filter((name) => name === "hold").length, 1);
});

for (const generation of [[], ["--stateless"]]) {
  const kind = generation.length ? "2026-07-28" : "earlier revisions";
  test(`the official client of 2026-07-28 answers a server of ${kind}`, async (t) => {
    const gateway = await start(t, ...generation);
    const client = new v2.Client({ name: "v2", version: "1" },
      { capabilities: { elicitation: {} }, versionNegotiation: { mode: { pin: "2026-07-28" } } });
    client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: { name: "Ada" } }));
    await client.connect(new v2.StreamableHTTPClientTransport(gateway.endpoint("fixture"), gateway.options()));
    t.after(() => client.close());
    const result = await client.callTool({ name: "test_input_required_result_elicitation", arguments: {} });
    assert.equal(result.content[0].text, "Hello, Ada!");
    const changed = new Promise((resolve) =>
      client.setNotificationHandler("notifications/tools/list_changed", () => resolve("heard")));
    const subscription = await client.listen({ toolsListChanged: true });
    await client.callTool({ name: "test_trigger_tool_change", arguments: {} });
    assert.equal(await changed, "heard");
    await subscription.close();
  });

  test(`a client of 2025-11-25 answers a server of ${kind}`, async (t) => {
    const gateway = await start(t, ...generation);
    const client = new Client({ name: "v1", version: "1" }, { capabilities: { elicitation: {} } });
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: { name: "Ada", color: "blue" } }));
    await client.connect(new StreamableHTTPClientTransport(gateway.endpoint("fixture"), gateway.options()));
    t.after(() => client.close());
    const text = async (name) => (await client.callTool({ name, arguments: {} })).content[0].text;
    assert.equal(await text("test_input_required_result_elicitation"), "Hello, Ada!");
    assert.match(await text("test_input_required_result_multi_round"), /Ada.*blue/);
    const seen = [];
    await client.callTool({ name: "test_tool_with_progress", arguments: {} }, undefined,
      { onprogress: (progress) => seen.push(progress.progress) });
    assert.deepEqual(seen, [0, 50, 100]);
  });
}
