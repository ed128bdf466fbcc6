// A coding agent's own command line, without a login: it lists its servers and says whether it reaches them.
import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import path from "node:path";
import test from "node:test";
import { missing, Owner } from "./owner.mjs";

// In a folder of its own: it is hundreds of megabytes.
const folder = path.resolve("coding-cli");
const cli = path.join(folder, "node_modules/.bin/claude");

test("M15: a coding CLI reaches the VM by what mcp config says, and over HTTP", { skip: missing() }, async (t) => {
  const npm = ["install", "--prefix", folder, "--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", "@anthropic-ai/claude-code"];
  const installed = spawnSync("npm", npm, { encoding: "utf8" });
  assert.equal(installed.status, 0, installed.stderr);
  const owner = new Owner(t, '[vm]\nmemory = "1G"\n', {});
  owner.ok("trust", "--yes");
  owner.ok("image", "build");
  owner.ok("create", "--branch", "sdk");
  owner.ok("start", owner.name);

  const env = {
    ...owner.options().env, HOME: owner.folder, MCP_TIMEOUT: "120000",
    PATH: `${path.dirname(process.env.AGENT_VM)}:${process.env.PATH}`,
  };
  const ask = (...args) => new Promise((resolve, reject) => {
    execFile(cli, ["mcp", ...args], { cwd: owner.repository, env, timeout: 300_000 }, (error, stdout, stderr) => (error ? reject(new Error(stdout + stderr)) : resolve(stdout)));
  });
  const printed = JSON.parse(owner.ok("mcp", "config", owner.name, "--client", "claude-code"));
  const [[name, stdio]] = Object.entries(printed.mcpServers);
  await ask("add-json", name, JSON.stringify(stdio));
  const { url, headers } = owner.endpoint("workspace");
  await ask("add-json", "direct", JSON.stringify({ type: "http", url: url.href, headers }));
  // The control: the same without the VM's token.
  await ask("add-json", "stranger", JSON.stringify({ type: "http", url: url.href, headers: { Authorization: "Bearer other" } }));
  const listed = await ask("list");
  const line = (server) => listed.split("\n").find((text) => text.startsWith(`${server}:`)) ?? listed;
  assert.match(line(name), /Connected$/);
  assert.match(line("direct"), /Connected$/);
  assert.doesNotMatch(line("stranger"), /Connected/);
});
