// Starts a real agent-mcp for a test, and takes it away again.
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { once } from "node:events";

export const fixture = process.env.MCP_FIXTURE;

function removeWhenDone(test, folder) {
  test.after(() => fs.rmSync(folder, { recursive: true, force: true }));
}

export function temporaryFolder(test) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "agent-mcp-test-"));
  removeWhenDone(test, folder);
  return folder;
}

// A gateway on a port of the kernel's choice. `config` is merged into a working configuration.
export class Gateway {
  constructor(test, config = {}) {
    this.folder = temporaryFolder(test);
    this.workspace = path.join(this.folder, "workspace");
    fs.mkdirSync(this.workspace);
    this.token = "token-of-this-test-0123456789";
    this.tokenFile = path.join(this.folder, "token");
    this.writeToken(this.token);
    this.config = {
      address: "127.0.0.1",
      port: 0,
      token_file: this.tokenFile,
      allowed_origins: ["https://claude.ai"],
      workspace: { root: this.workspace },
      state_directory: path.join(this.folder, "state"),
      servers: { fixture: { command: [fixture] } },
      ...config,
    };
    this.log = "";
    test.after(() => this.stop());
  }

  writeToken(token) {
    this.token = token;
    fs.writeFileSync(this.tokenFile, token + "\n", { mode: 0o600 });
  }

  writeConfig() {
    const file = path.join(this.folder, "config.json");
    fs.writeFileSync(file, JSON.stringify(this.config));
    return file;
  }

  async start(environment = {}) {
    const file = this.writeConfig();
    this.process = spawn(process.env.AGENT_MCP, ["--config", file, "--debug"], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...environment },
    });
    this.exited = once(this.process, "exit");
    const mark = this.log.length;
    this.process.stderr.on("data", (bytes) => (this.log += bytes));
    const port = await this.logged(/listening on \S+ port (\d+)/, mark);
    // The same port after a restart, as a client would find it.
    this.port = this.config.port = Number(port[1]);
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  // Waits for a line of the log, from `mark` on.
  async logged(pattern, mark = 0) {
    for (;;) {
      const match = this.log.slice(mark).match(pattern);
      if (match) return match;
      const ended = await Promise.race([
        once(this.process.stderr, "data").then(() => false),
        this.exited.then(() => true),
      ]);
      if (ended) throw new Error(`agent-mcp ended:\n${this.log}`);
    }
  }

  async stop(signal = "SIGTERM") {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode) return;
    this.process.kill(signal);
    await this.exited;
  }

  endpoint(server = "workspace") {
    return new URL(`${this.url}/servers/${server}/mcp`);
  }

  // What the official clients' transports take.
  options(extra = {}) {
    return { requestInit: { headers: { Authorization: `Bearer ${this.token}`, ...extra } } };
  }

  async details() {
    const response = await fetch(`${this.url}/health`, {
      headers: { Authorization: `Bearer ${this.token}` },
    });
    return (await response.json()).servers;
  }

  // A bare HTTP request; fetch() would hide Host and Origin. `body` is sent as it is.
  request(method, target, headers = {}, body = undefined) {
    return new Promise((resolve, reject) => {
      const request = http.request(
        { host: "127.0.0.1", port: this.port, method, path: target, headers, agent: false },
        (response) => {
          const chunks = [];
          response.on("data", (chunk) => chunks.push(chunk));
          response.on("end", () =>
            resolve({
              status: response.statusCode,
              headers: response.headers,
              body: Buffer.concat(chunks),
            }),
          );
        },
      );
      request.on("error", reject);
      request.end(body);
    });
  }

  headers(extra = {}) {
    return {
      Authorization: `Bearer ${this.token}`,
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      ...extra,
    };
  }

  post(server, message, extra = {}) {
    const body = typeof message === "string" ? message : JSON.stringify(message);
    return this.request("POST", `/servers/${server}/mcp`, this.headers(extra), body);
  }

  // A session by hand: for what a client library would not do.
  async session(server = "fixture", version = "2025-11-25") {
    const response = await this.post(server, {
      jsonrpc: "2.0",
      id: "init",
      method: "initialize",
      params: {
        protocolVersion: version,
        capabilities: { sampling: {}, elicitation: {}, roots: {} },
        clientInfo: { name: "test", version: "1" },
      },
    });
    if (response.status !== 200) throw new Error(`initialize: ${response.status} ${response.body}`);
    const id = response.headers["mcp-session-id"];
    const send = (message) => this.post(server, message, { "Mcp-Session-Id": id });
    await send({ jsonrpc: "2.0", method: "notifications/initialized" });
    let next = 1;
    return {
      id,
      send,
      // The result of a tool call as the text it returned.
      call: async (name, args = {}) => {
        const answer = await send({
          jsonrpc: "2.0",
          id: next++,
          method: "tools/call",
          params: { name, arguments: args },
        });
        return messagesOf(answer).at(-1);
      },
      // A GET event stream, read as it comes.
      open: (lastEventId) => openEvents(this, server, id, lastEventId),
      close: () =>
        this.request("DELETE", `/servers/${server}/mcp`, this.headers({ "Mcp-Session-Id": id })),
    };
  }
}

export function textOf(message) {
  return message.result.content[0].text;
}

export function parseEvents(text) {
  return text
    .split("\n\n")
    .filter((block) => /^data:/m.test(block))
    .map((block) => ({
      id: block.match(/^id: (.*)$/m)?.[1],
      data: block.match(/^data: ?(.*)$/m)[1],
    }));
}

// The messages of a response, whether it is JSON or an event stream.
export function messagesOf(response) {
  const text = response.body.toString();
  if (!/event-stream/.test(response.headers["content-type"] ?? "")) return [JSON.parse(text)];
  return parseEvents(text)
    .filter((event) => event.data !== "")
    .map((event) => JSON.parse(event.data));
}

async function openEvents(gateway, server, session, lastEventId) {
  const headers = gateway.headers({ "Mcp-Session-Id": session });
  if (lastEventId) headers["Last-Event-ID"] = lastEventId;
  return openStream(gateway, "GET", `/servers/${server}/mcp`, headers);
}

// Sends a request and hands over the response's events one by one.
export async function openStream(gateway, method, target, headers, body) {
  const request = http.request({
    host: "127.0.0.1", port: gateway.port, method, path: target, headers, agent: false,
  });
  request.end(body);
  const [response] = await once(request, "response");
  let text = "";
  let ended = false;
  response.on("data", (chunk) => (text += chunk));
  response.on("error", () => {});
  response.on("close", () => (ended = true));
  let read = 0;
  const events = () => parseEvents(text.slice(0, text.lastIndexOf("\n\n") + 2));
  const more = () => Promise.race([once(response, "data"), once(response, "close")]);
  return {
    status: response.statusCode,
    headers: response.headers,
    // The next event with data; null at the end of the stream.
    next: async () => {
      for (;;) {
        const full = events().filter((event) => event.data !== "");
        if (read < full.length) return full[read++];
        if (ended) return null;
        await more();
      }
    },
    // The event without data that primes a client for coming back.
    primer: async () => {
      while (events().length === 0 && !ended) await more();
      return events()[0];
    },
    close: () => request.destroy(),
  };
}

// Descriptors and children of a process, as the kernel lists them.
export function descriptorsOf(pid) {
  return fs.readdirSync(`/proc/${pid}/fd`).length;
}
export function childrenOf(pid) {
  return fs
    .readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .split(" ")
    .filter(Boolean)
    .map(Number);
}
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // A zombie that nobody has reaped yet is dead all the same.
  return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, "utf8"));
}

// Polls a condition that no event announces.
export async function until(condition, what, milliseconds = 10000) {
  const deadline = Date.now() + milliseconds;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${milliseconds} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
