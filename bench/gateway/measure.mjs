// Measures the gateway and two npm proxies, taking turns (A B C A B C ...), so that what else the machine
// does falls on all of them. Ratios, not times, are what can be compared between machines.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
};
const rounds = option("rounds", 10);
const perRound = 200;
const parallel = 8;
const throughputSeconds = 2;
const sessionsForMemory = [100, 1000];
const heldMs = 10000;
const fixture = process.env.MCP_FIXTURE;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "gateway-bench-"));
const token = "token-of-the-bench-0123456789";
const children = [];

function start(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  child.log = "";
  child.stderr.on("data", (bytes) => (child.log = (child.log + bytes).slice(-4000)));
  children.push(child);
  return child;
}

function startGateway(port) {
  const config = path.join(folder, "config.json");
  fs.writeFileSync(path.join(folder, "token"), token, { mode: 0o600 });
  fs.writeFileSync(config, JSON.stringify({
    address: "127.0.0.1", port, token_file: path.join(folder, "token"), workspace: { root: folder },
    servers: { echo: { command: [fixture] } }, limits: { max_sessions: 1100, max_processes: 1100 },
  }));
  return { process: start(process.env.AGENT_MCP, ["--config", config]), target: "/servers/echo/mcp" };
}
const bin = (name) => path.resolve("node_modules", name);
const startMcpProxy = (port) => ({
  process: start(process.execPath, [bin("mcp-proxy/dist/bin/mcp-proxy.mjs"), "--port", port, "--host", "127.0.0.1", "--server", "stream", "--", fixture]),
  target: "/mcp",
});
const startSupergateway = (port) => ({
  process: start(process.execPath, [bin("supergateway/dist/index.js"), "--stdio", fixture, "--outputTransport", "streamableHttp", "--stateful", "--port", port, "--logLevel", "none"]),
  target: "/mcp",
});

// What HTTP alone costs this client: a process that reads one request and has its answer ready. No
// gateway can be faster than this and the pipes together.
const bareServer = `
const answer = JSON.stringify({ jsonrpc: "2.0", id: 1, result: { content: [{ type: "text", text: "x" }] } });
const bytes = Buffer.from("HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: " + answer.length + "\\r\\n\\r\\n" + answer);
require("net").createServer({ noDelay: true }, (socket) => {
  let text = "";
  socket.on("error", () => {});
  socket.on("data", (piece) => {
    text += piece;
    const end = text.indexOf("\\r\\n\\r\\n");
    if (end < 0 || text.length < end + 4 + Number(/content-length: (\\d+)/i.exec(text)[1])) return;
    text = "";
    socket.write(bytes);
  });
}).listen(Number(process.argv[1]), "127.0.0.1");`;
const startBare = (port) => ({ process: start(process.execPath, ["-e", bareServer, String(port)]), target: "/" });

class Subject {
  constructor(name, begin, port) {
    Object.assign(this, { name, port }, begin(port));
    this.agent = new http.Agent({ keepAlive: true, maxSockets: parallel });
  }

  post(message, session) {
    const body = JSON.stringify(message);
    const headers = {
      "Content-Type": "application/json", Accept: "application/json, text/event-stream",
      Authorization: `Bearer ${token}`, "Content-Length": Buffer.byteLength(body),
      ...(session ? { "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25" } : {}),
    };
    return new Promise((resolve, reject) => {
      const request = http.request({ host: "127.0.0.1", port: this.port, method: "POST", path: this.target, headers, agent: this.agent }, (response) => {
        let text = "";
        response.on("data", (bytes) => (text += bytes));
        response.on("end", () => resolve({ status: response.statusCode, text, session: response.headers["mcp-session-id"] }));
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  async open() {
    const answer = await this.post({
      jsonrpc: "2.0", id: 0, method: "initialize",
      params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "bench", version: "1" } },
    });
    if (answer.status !== 200) throw new Error(`${this.name}: ${answer.status} ${answer.text}`);
    await this.post({ jsonrpc: "2.0", method: "notifications/initialized" }, answer.session);
    return answer.session;
  }

  async ready() {
    for (let i = 0; ; i++) {
      try {
        return (this.session = await this.open());
      } catch (error) {
        if (i === 150) throw new Error(`${this.name}: ${error.message}\n${this.process.log}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  async call(name, args) {
    const id = (this.next = (this.next ?? 0) + 1);
    const answer = await this.post({ jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args } }, this.session);
    if (!answer.text.includes('"result"')) throw new Error(`${this.name}: ${answer.status} ${answer.text}`);
  }

  // CPU seconds and resident memory of its own process, without the servers behind it.
  cpu() {
    const fields = fs.readFileSync(`/proc/${this.process.pid}/stat`, "utf8").split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }
  memory() {
    return Number(fs.readFileSync(`/proc/${this.process.pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1]) * 1024;
  }
}

// The same calls over the server's own pipes: what no gateway can be faster than.
class Raw {
  constructor() {
    this.name = "raw stdio";
    this.process = spawn(fixture, [], { stdio: ["pipe", "pipe", "ignore"] });
    children.push(this.process);
    this.text = "";
    this.process.stdout.on("data", (bytes) => {
      this.text += bytes;
      if (this.text.endsWith("\n")) {
        this.text = "";
        this.answered?.();
      }
    });
  }
  call(name, args) {
    const answered = new Promise((resolve) => (this.answered = resolve));
    this.process.stdin.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }) + "\n");
    return answered;
  }
}

const now = () => Number(process.hrtime.bigint()) / 1e6;
const sorted = (list) => [...list].sort((a, b) => a - b);
const quantile = (list, q) => sorted(list)[Math.min(list.length - 1, Math.floor(list.length * q))];
const median = (list) => quantile(list, 0.5);

async function roundTrips(subject) {
  const times = [];
  for (let i = 0; i < perRound; i++) {
    const begin = now();
    await subject.call("echo", { text: "x" });
    times.push(now() - begin);
  }
  return times;
}

// Over and over, for as long as another call takes.
async function roundTripsFor(subject, milliseconds) {
  const times = [];
  for (const end = now() + milliseconds; now() < end;) times.push(...(await roundTrips(subject)));
  return times;
}

// By wrk, which costs a fraction of what a client in node does: that one shares the processors with
// the gateway, and would be what is measured. Each answer is looked at.
async function throughput(subject) {
  const script = path.join(folder, "calls.lua");
  const body = JSON.stringify({ jsonrpc: "2.0", id: "ID", method: "tools/call", params: { name: "echo", arguments: { text: "x" } } });
  fs.writeFileSync(script, `
    local id, before, after = 1000000, [[${body.split('"ID"')[0]}]], [[${body.split('"ID"')[1]}]]
    bad = 0
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["Accept"] = "application/json, text/event-stream"
    wrk.headers["Authorization"] = "Bearer ${token}"
    wrk.headers["Mcp-Session-Id"] = "${subject.session ?? "none"}"
    wrk.headers["MCP-Protocol-Version"] = "2025-11-25"
    request = function()
      id = id + 1
      return wrk.format(nil, nil, nil, before .. id .. after)
    end
    response = function(status, headers, body)
      if status ~= 200 or not body:find('"result"', 1, true) then bad = bad + 1 end
    end
    local only
    setup = function(thread) only = thread end
    done = function(summary)
      local e = summary.errors
      local failed = only:get("bad") + e.connect + e.read + e.write + e.timeout
      print("figures", summary.requests, summary.duration / 1e6, failed)
    end`);
  const cpu = subject.cpu();
  // Not waiting in one piece: what the servers write to their standard errors is read meanwhile.
  const wrk = spawn("wrk", ["--threads", "1", "--connections", parallel, "--duration", `${throughputSeconds}s`, "--script", script,
    `http://127.0.0.1:${subject.port}${subject.target}`], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  wrk.stdout.on("data", (bytes) => (said += bytes));
  await once(wrk, "close");
  const [, requests, seconds, failed] = (/^figures\s.*$/m.exec(said) ?? [""])[0].split(/\s+/).map(Number);
  if (!(requests > 0) || failed > 0) throw new Error(`${subject.name}: wrk: ${said}`);
  return { rate: requests / seconds, cpu: (subject.cpu() - cpu) / requests };
}

async function main() {
  const base = 20000 + (process.pid % 20000);
  const subjects = [
    new Subject("agent-mcp", startGateway, base),
    new Subject("mcp-proxy", startMcpProxy, base + 1),
    new Subject("supergateway", startSupergateway, base + 2),
  ];
  const raw = new Raw();
  const bare = new Subject("bare HTTP", startBare, base + 3);
  for (const subject of [...subjects, bare]) await subject.ready();
  const figures = Object.fromEntries([...subjects, raw, bare].map((s) => [s.name, { rate: [], cpu: [], trip: [], slow: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const subject of [raw, bare, ...subjects]) {
      const times = await roundTrips(subject);
      figures[subject.name].trip.push(median(times));
    }
    for (const subject of [bare, ...subjects]) {
      const { rate, cpu } = await throughput(subject);
      figures[subject.name].rate.push(rate);
      figures[subject.name].cpu.push(cpu);
    }
  }
  // While another call of the same session takes its time.
  for (const subject of subjects) {
    const held = subject.call("hold", {}).catch(() => {});
    figures[subject.name].slow = await roundTripsFor(subject, heldMs);
    await subject.call("release", {});
    await held;
  }
  for (const subject of subjects) {
    figures[subject.name].memory = { 1: subject.memory() };
    let open = 1;
    for (const count of sessionsForMemory) {
      for (; open < count; open++) await subject.open();
      figures[subject.name].memory[count] = subject.memory();
    }
    // The servers of a thousand sessions are memory as well, which the next one may need.
    subject.process.kill("SIGTERM");
    await once(subject.process, "exit");
  }
  report(subjects.map((s) => s.name), figures);
}

function report(names, figures) {
  const own = figures[names[0]];
  const of = (name, key) => median(figures[name][key]);
  const ratio = (id, what, value, goal) => ({ id, what, value, goal });
  const ratios = [
    ratio("P9", "requests/s / mcp-proxy", of(names[0], "rate") / of("mcp-proxy", "rate"), ">= 10"),
    ratio("P10", "memory with 100 sessions / mcp-proxy", own.memory[100] / figures["mcp-proxy"].memory[100], "<= 0.1"),
    ratio("P11", "round trip / raw stdio", of(names[0], "trip") / of("raw stdio", "trip"), "<= 1.5"),
  ];
  // What they consist of, and the other proxy; without goals.
  const parts = [
    ["requests/s / supergateway", of(names[0], "rate") / of("supergateway", "rate")],
    ["memory with 100 sessions / supergateway", own.memory[100] / figures.supergateway.memory[100]],
    ["requests/s / bare HTTP", of(names[0], "rate") / of("bare HTTP", "rate")],
    ["bare HTTP / raw stdio: the client's own share", of("bare HTTP", "trip") / of("raw stdio", "trip")],
    ["round trip / (bare HTTP + raw stdio)", of(names[0], "trip") / (of("bare HTTP", "trip") + of("raw stdio", "trip"))],
  ];
  const machine = { cpus: os.cpus().length, model: os.cpus()[0]?.model, kernel: os.release(), node: process.version, rounds };
  if (process.argv.includes("--json")) {
    console.log(JSON.stringify({ machine, figures, ratios, parts }, null, 2));
    return;
  }
  console.log(`${machine.cpus} x ${machine.model}, Linux ${machine.kernel}, node ${machine.node}, ${rounds} rounds\n`);
  const row = (cells) => console.log(cells.map((cell, i) => (i ? String(cell).padStart(20) : String(cell).padEnd(14))).join(""));
  const spread = (list, digits) => `${median(list).toFixed(digits)} (${quantile(list, 0.1).toFixed(digits)}-${quantile(list, 0.9).toFixed(digits)})`;
  row(["", "requests/s", "CPU ms/request", "round trip ms", "p50 while held", "p99 while held", "MB, 1 session", "MB, 100", "MB, 1000"]);
  row(["raw stdio", "", "", spread(figures["raw stdio"].trip, 2)]);
  row(["bare HTTP", spread(figures["bare HTTP"].rate, 0), (median(figures["bare HTTP"].cpu) * 1000).toFixed(2), spread(figures["bare HTTP"].trip, 2)]);
  for (const name of names) {
    const f = figures[name];
    row([name, spread(f.rate, 0), (median(f.cpu) * 1000).toFixed(2), spread(f.trip, 2), median(f.slow).toFixed(2),
      quantile(f.slow, 0.99).toFixed(2), (f.memory[1] / 1e6).toFixed(1), (f.memory[100] / 1e6).toFixed(1), (f.memory[1000] / 1e6).toFixed(1)]);
  }
  console.log();
  for (const { id, what, value, goal } of ratios) {
    const bound = Number(goal.split(" ")[1]);
    const reached = goal.startsWith("<=") ? value <= bound : value >= bound;
    console.log(`${id.padEnd(4)} ${what.padEnd(54)} ${value.toFixed(3).padStart(7)}   goal ${goal}: ${reached ? "reached" : "not reached"}`);
  }
  for (const [what, value] of parts) console.log(`     ${what.padEnd(54)} ${value.toFixed(3).padStart(7)}`);
}

main()
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  })
  .finally(() => {
    for (const child of children) child.kill("SIGKILL");
    fs.rmSync(folder, { recursive: true, force: true });
  });
