// Streamable HTTP to the letter, and messages byte for byte.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { Gateway, fixture, messagesOf, openStream, textOf } from "./harness.mjs";

const toolCall = (id, name, args = {}) => ({
  jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args },
});

test("status codes", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const withSession = { "Mcp-Session-Id": session.id };
  const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
  const check = async (status, response, code) => {
    const answer = await response;
    assert.equal(answer.status, status, answer.body.toString());
    if (code) assert.equal(JSON.parse(answer.body).error.code, code);
    return answer;
  };
  await check(200, gateway.post("fixture", ping, withSession));
  const accepted = await check(202, session.send({ jsonrpc: "2.0", method: "notifications/x" }));
  assert.equal(accepted.body.length, 0);
  await check(400, gateway.post("fixture", "{", withSession), -32700);
  await check(400, gateway.post("fixture", '{"jsonrpc":"2.0","id":1,"method":"a"} {', withSession), -32700);
  await check(400, gateway.post("fixture", '{"jsonrpc":"2.0","id":1.5,"method":"a"}', withSession), -32600);
  await check(400, gateway.post("fixture", [ping], withSession), -32600);
  await check(400, gateway.post("fixture", ping));
  await check(404, gateway.post("fixture", ping, { "Mcp-Session-Id": "0".repeat(32) }));
  await check(404, gateway.post("nobody", ping, withSession));
  await check(400, gateway.post("fixture", ping, { ...withSession, "MCP-Protocol-Version": "1999-01-01" }), -32022);
  await check(200, gateway.post("fixture", ping, { ...withSession, "MCP-Protocol-Version": "2025-11-25" }));
  await check(406, gateway.post("fixture", ping, { ...withSession, Accept: "application/json" }));
  await check(415, gateway.post("fixture", ping, { ...withSession, "Content-Type": "text/plain" }));
  await check(405, gateway.request("PUT", "/servers/fixture/mcp", gateway.headers(withSession)));
  await check(406, gateway.request("GET", "/servers/fixture/mcp", gateway.headers({ ...withSession, Accept: "application/json" })));
  await check(400, gateway.request("GET", "/servers/fixture/mcp", gateway.headers()));
  await check(200, session.close());
  await check(404, session.close());
  await check(404, gateway.post("fixture", ping, withSession));
});

test("bodies reach the server byte for byte, on one line", async (t) => {
  const gateway = new Gateway(t);
  const lines = path.join(gateway.folder, "lines");
  gateway.config.servers.fixture.command = [fixture, "--lines", lines];
  await gateway.start();
  const session = await gateway.session();
  // Numbers that a parser would round or refuse, a duplicate key, escapes, a line separator.
  const odd = `{"big":9223372036854775808,"huge":1e400,"z":1,"a":2,"z":3,"s":"\\u0061\\/\u2028\u00e9"}`;
  const pretty = `{ "jsonrpc" : "2.0",\r\n\t"method":"notifications/odd",\n"params":${odd}\n}`;
  assert.equal((await session.send(pretty)).status, 202);
  await session.call("echo");
  const received = fs.readFileSync(lines, "utf8").split("\n");
  assert.equal(received[2], pretty.replace(/[\r\n]/g, " "));
});

test("ids come back as they were", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  for (const id of ['"text"', '"with \\"quotes\\""', "7", "0", "-3", "9007199254740993"]) {
    const body = `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}`;
    const text = (await session.send(body)).body.toString();
    assert.ok(text.includes(`"id":${id},`), `${id}: ${text}`);
  }
});

test("ten megabytes go both ways unchanged", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const text = "0123456789".repeat(1 << 20);
  assert.equal(textOf(await session.call("echo", { text })), text);
});

test("a call that waits does not delay another, and becomes a stream", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const held = session.send(toolCall("held", "hold"));
  const started = Date.now();
  for (let i = 0; i < 50; i++) assert.equal(textOf(await session.call("echo", { text: `${i}` })), `${i}`);
  assert.ok(Date.now() - started < 2000);
  // After a moment of silence the answer's header comes, and then the answer.
  const slow = await openStream(gateway, "POST", "/servers/fixture/mcp",
    gateway.headers({ "Mcp-Session-Id": session.id }), JSON.stringify(toolCall("slow", "hold")));
  assert.match(slow.headers["content-type"], /text\/event-stream/);
  await session.call("release");
  assert.equal(textOf(JSON.parse((await slow.next()).data)), "released");
  assert.equal(await slow.next(), null);
  assert.equal(textOf(messagesOf(await held).at(-1)), "released");
});

test("a broken stream is resumed by Last-Event-ID: exactly once, and only that stream", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const headers = gateway.headers({ "Mcp-Session-Id": session.id });
  const first = await openStream(gateway, "POST", "/servers/fixture/mcp", headers, JSON.stringify(toolCall("one", "hold")));
  const primed = await first.primer();
  assert.match(primed.id, /^\d+-0$/);
  first.close();
  // The disconnect cancelled nothing: the answer waits.
  await session.call("release");
  const resumed = await session.open(primed.id);
  const event = await resumed.next();
  assert.equal(JSON.parse(event.data).id, "one");
  assert.equal(await resumed.next(), null);
  const again = await session.open(event.id);
  assert.equal(await again.next(), null);
  // Another stream's cursor, and one that never was, are refused.
  assert.equal((await session.open("4711-1")).status, 400);
  assert.equal((await session.open("nonsense")).status, 400);
  const stream = primed.id.split("-")[0];
  assert.equal((await session.open(`${stream}-99`)).status, 400);
});

test("GET opens at once, and a newer GET takes over", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const first = await session.open();
  assert.equal(first.status, 200);
  const second = await session.open();
  assert.equal(await first.next(), null);
  // Two requests in flight: what belongs to neither comes here.
  const held = [session.send(toolCall("a", "hold")), session.send(toolCall("b", "hold"))];
  const asked = session.send(toolCall("c", "roots"));
  const question = JSON.parse((await second.next()).data);
  assert.equal(question.method, "roots/list");
  await session.send({ jsonrpc: "2.0", id: question.id, result: { roots: [] } });
  assert.match(textOf(messagesOf(await asked).at(-1)), /"roots":\[\]/);
  await session.call("release");
  await Promise.all(held);
  second.close();
});

test("cancel ends the request; its id can be used again", async (t) => {
  const gateway = await new Gateway(t).start();
  const session = await gateway.session();
  const cancel = { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: "x" } };
  const held = session.send(toolCall("x", "hold"));
  // The echo behind it proves that the hold has arrived.
  await session.call("echo", { text: "" });
  assert.equal((await session.send(cancel)).status, 202);
  assert.equal((await session.send(cancel)).status, 202);
  assert.equal((await held).body.toString().includes("result"), false);
  const again = await session.send(toolCall("x", "echo", { text: "second" }));
  assert.equal(textOf(JSON.parse(again.body)), "second");
  assert.equal(JSON.parse(again.body).id, "x");
  // The fixture answers the cancelled call late; nobody gets that answer.
  await session.call("release");
});

test("batches: in 2025-03-26, and in no other revision", async (t) => {
  const gateway = await new Gateway(t).start();
  const old = await gateway.session("fixture", "2025-03-26");
  const batch = [toolCall(1, "echo", { text: "a" }), { jsonrpc: "2.0", method: "notifications/x" }, toolCall(2, "echo", { text: "b" })];
  const answers = messagesOf(await old.send(batch));
  assert.deepEqual(answers.map((a) => [a.id, textOf(a)]).sort(), [[1, "a"], [2, "b"]]);
  assert.equal((await old.send([{ jsonrpc: "2.0", method: "notifications/x" }])).status, 202);
  const newer = await gateway.session("fixture", "2025-11-25");
  assert.equal((await newer.send(batch)).status, 400);
});
