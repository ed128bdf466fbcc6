// Who gets in (S21): each refusal with the same request that is let in.
import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import test from "node:test";
import { Gateway, childrenOf, textOf } from "./harness.mjs";

const initialize = {
  jsonrpc: "2.0", id: 1, method: "initialize",
  params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "x", version: "1" } },
};
const targets = ["/mcp", "/servers/fixture/mcp", "/servers/fixture/sse", "/health", "/nothing"];

test("S21: without the token nothing is said and nothing is started", async (t) => {
  const gateway = await new Gateway(t).start();
  for (const authorization of [undefined, "", "Bearer", "Bearer wrong", `Bearer ${gateway.token}x`, `Basic ${gateway.token}`]) {
    const headers = gateway.headers();
    if (authorization === undefined) delete headers.Authorization;
    else headers.Authorization = authorization;
    const response = await gateway.request("POST", "/servers/fixture/mcp", headers, JSON.stringify(initialize));
    assert.equal(response.status, 401, authorization);
    assert.equal(response.headers["www-authenticate"], "Bearer");
  }
  assert.deepEqual(childrenOf(gateway.process.pid), []);
  assert.equal((await gateway.post("fixture", initialize)).status, 200);
  assert.equal(childrenOf(gateway.process.pid).length, 1);
});

test("S21: a foreign Origin is refused before authentication, on every route", async (t) => {
  const gateway = await new Gateway(t).start();
  for (const target of targets) {
    for (const origin of ["null", "https://evil.example", "https://claude.ai.evil.example", "http://claude.ai", "https://claude.ai:444"]) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const response = await gateway.request(method, target, gateway.headers({ Origin: origin }));
        assert.equal(response.status, 403, `${method} ${target} ${origin}`);
        assert.equal(response.headers["access-control-allow-origin"], undefined);
        const unauthenticated = await gateway.request(method, target, { Origin: origin });
        assert.equal(unauthenticated.status, 403);
      }
    }
  }
  assert.deepEqual(childrenOf(gateway.process.pid), []);
  const allowed = await gateway.post("fixture", initialize, { Origin: "https://claude.ai" });
  assert.equal(allowed.status, 200);
  assert.equal(allowed.headers["access-control-allow-origin"], "https://claude.ai");
  const preflight = await gateway.request("OPTIONS", "/mcp", { Origin: "https://claude.ai" });
  assert.equal(preflight.status, 204);
});

test("S21: a rebound name is refused on every route", async (t) => {
  const gateway = await new Gateway(t, { allowed_hosts: ["localhost", "vm.test:8000"] }).start();
  for (const target of targets) {
    for (const host of ["evil.example", "127.0.0.1.nip.io", "vm.test:8001", "localhost.evil.example", "169.254.169.254"]) {
      const response = await gateway.request("GET", target, gateway.headers({ Host: host }));
      assert.equal(response.status, 403, `${target} ${host}`);
    }
  }
  for (const host of ["localhost", "localhost:1234", "vm.test:8000"]) {
    assert.equal((await gateway.request("GET", "/health", { Host: host })).status, 200, host);
  }
});

test("health says little without the token, and more with it", async (t) => {
  const gateway = await new Gateway(t).start();
  const open = await gateway.request("GET", "/health");
  assert.equal(open.body.toString(), '{"status":"ok"}\n');
  assert.equal((await gateway.request("GET", "/health", { Authorization: "Bearer wrong-token-wrong" })).status, 401);
  assert.deepEqual(Object.keys(await gateway.details()).sort(), ["fixture", "workspace"]);
});

test("the token is in no log, no argument and no child's environment", async (t) => {
  const gateway = await new Gateway(t).start({ NOTIFY_SOCKET: "/nowhere", CREDENTIALS_DIRECTORY: "/nowhere" });
  const session = await gateway.session();
  const environment = textOf(await session.call("environment"));
  assert.match(environment, /PATH=/);
  assert.doesNotMatch(environment, /NOTIFY_SOCKET|CREDENTIALS_DIRECTORY/);
  for (const pid of [gateway.process.pid, ...childrenOf(gateway.process.pid)]) {
    for (const file of ["cmdline", "environ"]) {
      assert.ok(!fs.readFileSync(`/proc/${pid}/${file}`, "utf8").includes(gateway.token), file);
    }
  }
  // The log is at its most talkative here. What a client sends by mistake is not in it either.
  await gateway.post("fixture", { jsonrpc: "2.0", id: 1, method: "tools/call", params: { token: gateway.token } });
  assert.ok(!gateway.log.includes(gateway.token));
  // Negative control: what is known to be logged is found by the same search.
  assert.ok(gateway.log.includes(`session ${session.id.slice(0, 6)}`), gateway.log);
  assert.ok(!gateway.log.includes(session.id));
});

test("the token is rotated by SIGHUP, and sessions survive it", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const old = gateway.token;
  gateway.writeToken("another-token-0123456789");
  // Not read yet: the old one still holds.
  assert.equal((await gateway.request("GET", "/health", { Authorization: `Bearer ${gateway.token}` })).status, 401);
  gateway.process.kill("SIGHUP");
  await gateway.logged(/the token was read again/);
  assert.equal((await gateway.request("GET", "/health", { Authorization: `Bearer ${old}` })).status, 401);
  assert.equal(textOf(await session.call("echo", { text: "still here" })), "still here");
  // A token that cannot be used does not lock the owner out.
  fs.writeFileSync(gateway.tokenFile, "short\n");
  gateway.process.kill("SIGHUP");
  await gateway.logged(/the token was not changed/);
  assert.equal(textOf(await session.call("echo", { text: "and here" })), "and here");
});

test("a session belongs to its server", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session("fixture");
  const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
  assert.equal((await session.send(ping)).status, 200);
  assert.equal((await gateway.post("workspace", ping, { "Mcp-Session-Id": session.id })).status, 404);
});

test("oversized and slow requests end within bounds", async (t) => {
  const gateway = await new Gateway(t, { limits: { max_body_bytes: 100000 } }).start();
  const big = await gateway.request("GET", "/health", { "X-Big": "x".repeat(20000) });
  assert.equal(big.status, 431);
  assert.equal((await gateway.post("fixture", " ".repeat(100001))).status, 413);
  const chunked = await gateway.request("POST", "/servers/fixture/mcp", gateway.headers({ "Transfer-Encoding": "chunked" }), " ".repeat(200000));
  assert.equal(chunked.status, 413);
  // A header that never ends is cut off by its deadline of 10 s, and serves nobody meanwhile.
  const started = Date.now();
  const socket = net.connect(gateway.port, "127.0.0.1");
  socket.write("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
  const drip = setInterval(() => socket.write("x"), 500);
  assert.equal((await gateway.request("GET", "/health")).status, 200);
  await new Promise((resolve) => socket.on("close", resolve).on("error", resolve).resume());
  clearInterval(drip);
  assert.ok(Date.now() - started < 15000, `${Date.now() - started} ms`);
});
