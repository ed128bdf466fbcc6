// The official clients of both generations do a day's work.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import * as v2 from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  LoggingMessageNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { Gateway } from "./harness.mjs";

const filesystemServer = path.resolve(
  "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js",
);

function git(folder, ...args) {
  return execFileSync("git", ["-C", folder, ...args], { encoding: "utf8" });
}

async function startWithFilesystem(t) {
  const gateway = new Gateway(t);
  gateway.config.servers.files = {
    command: [process.execPath, filesystemServer, gateway.workspace],
  };
  return gateway.start();
}

async function connectV1(t, gateway, server, capabilities = {}) {
  const client = new Client({ name: "v1", version: "1" }, { capabilities });
  const transport = new StreamableHTTPClientTransport(gateway.endpoint(server), gateway.options());
  await client.connect(transport);
  t.after(() => client.close());
  return { client, transport };
}

async function connectV2(t, gateway, server, mode) {
  const client = new v2.Client(
    { name: "v2", version: "1" },
    mode ? { versionNegotiation: { mode } } : undefined,
  );
  await client.connect(
    new v2.StreamableHTTPClientTransport(gateway.endpoint(server), gateway.options()),
  );
  t.after(() => client.close());
  return client;
}

async function call(client, name, args = {}) {
  const result = await client.callTool({ name, arguments: args });
  return { text: result.content[0].text, failed: result.isError === true };
}

test("a v1 client runs a command, edits a file and commits, by the workspace server", async (t) => {
  const gateway = await startWithFilesystem(t);
  git(gateway.workspace, "init", "-q", "-b", "main");
  git(gateway.workspace, "config", "user.name", "Owner");
  git(gateway.workspace, "config", "user.email", "owner@example.test");
  const { client } = await connectV1(t, gateway, "workspace");
  assert.equal(client.getServerVersion().name, "workspace");

  const names = (await client.listTools()).tools.map((tool) => tool.name);
  for (const name of ["exec", "read", "write", "edit", "apply_patch", "grep", "git_commit"]) {
    assert.ok(names.includes(name), name);
  }
  assert.match((await call(client, "exec", { command: "echo $((6 * 7))" })).text, /^42\n\[exited with status 0/);
  await call(client, "write", { path: "hello.txt", content: "hello wrold\n" });
  const edited = await call(client, "edit", {
    path: "hello.txt", old_text: "wrold", new_text: "world",
  });
  assert.equal(edited.failed, false);
  assert.equal(fs.readFileSync(path.join(gateway.workspace, "hello.txt"), "utf8"), "hello world\n");
  // Negative control: the same edit does not match a second time.
  assert.equal((await call(client, "edit", { path: "hello.txt", old_text: "wrold", new_text: "x" })).failed, true);
  assert.equal((await call(client, "git_commit", { message: "Add a greeting" })).failed, false);
  assert.equal(git(gateway.workspace, "log", "--format=%an: %s").trim(), "Owner: Add a greeting");
  assert.equal(git(gateway.workspace, "status", "--porcelain"), "");
});

test("the default server answers at /mcp", async (t) => {
  const gateway = await startWithFilesystem(t);
  const client = new Client({ name: "v1", version: "1" });
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${gateway.url}/mcp`), gateway.options()),
  );
  assert.equal(client.getServerVersion().name, "workspace");
  await client.close();
});

test("server-filesystem works behind its own endpoint, beside the workspace server", async (t) => {
  const gateway = await startWithFilesystem(t);
  const { client, transport } = await connectV1(t, gateway, "files");
  const names = (await client.listTools()).tools.map((tool) => tool.name);
  assert.ok(names.includes("write_file"));
  const file = path.join(gateway.workspace, "note.txt");
  await call(client, "write_file", { path: file, content: "from the other server" });
  const { client: other } = await connectV1(t, gateway, "workspace");
  assert.match((await call(other, "read", { path: "note.txt" })).text, /from the other server/);
  await transport.terminateSession();
  await assert.rejects(client.listTools(), /404|session/i);
});

for (const mode of [undefined, "auto"]) {
  test(`a v2 client (${mode ?? "default"} negotiation) works`, async (t) => {
    const gateway = await startWithFilesystem(t);
    for (const server of ["workspace", "files", "fixture"]) {
      const client = await connectV2(t, gateway, server, mode);
      assert.ok((await client.listTools()).tools.length > 5, server);
    }
    const client = await connectV2(t, gateway, "workspace", mode);
    assert.match((await call(client, "exec", { argv: ["echo", "a b"] })).text, /^a b\n/);
  });
}

test("the transport of 2024-11-05 works", async (t) => {
  const gateway = await startWithFilesystem(t);
  const client = new Client({ name: "old", version: "1" });
  await client.connect(
    new SSEClientTransport(new URL(`${gateway.url}/servers/fixture/sse`), {
      ...gateway.options(),
      eventSourceInit: {
        fetch: (url, init) =>
          fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${gateway.token}` } }),
      },
    }),
  );
  assert.equal((await call(client, "echo", { text: "old but alive" })).text, "old but alive");
  await client.close();
});

test("progress and log messages arrive, in order, with their request", async (t) => {
  const gateway = await startWithFilesystem(t);
  const { client } = await connectV1(t, gateway, "fixture");
  const seen = [];
  await client.callTool({ name: "test_tool_with_progress", arguments: {} }, undefined, {
    onprogress: (progress) => seen.push(progress.progress),
  });
  assert.deepEqual(seen, [0, 50, 100]);
  const logs = [];
  client.setNotificationHandler(LoggingMessageNotificationSchema, (n) => void logs.push(n.params.data));
  await client.callTool({ name: "test_tool_with_logging", arguments: {} });
  assert.deepEqual(logs, ["Tool execution started", "Tool processing data", "Tool execution completed"]);
});

test("a server's question reaches the session it belongs to, and no other", async (t) => {
  const gateway = await startWithFilesystem(t);
  const asked = [];
  const clients = await Promise.all(
    ["a", "b", "c"].map(async (name) => {
      const { client } = await connectV1(t, gateway, "fixture", { sampling: {} });
      client.setRequestHandler(CreateMessageRequestSchema, (request) => {
        asked.push([name, request.params.messages[0].content.text]);
        return { model: "m", role: "assistant", content: { type: "text", text: `by ${name}` } };
      });
      return [name, client];
    }),
  );
  const answers = await Promise.all(
    clients.map(([name, client]) => call(client, "test_sampling", { prompt: `for ${name}` })),
  );
  answers.forEach((answer, i) => assert.match(answer.text, new RegExp(`by ${clients[i][0]}`)));
  assert.deepEqual(asked.sort(), [["a", "for a"], ["b", "for b"], ["c", "for c"]]);
});
