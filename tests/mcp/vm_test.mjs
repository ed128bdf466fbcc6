// The whole way, as an owner with the official client goes it: a repository that asks for an MCP
// server of npm's, a VM with it, tools called through the forwarded port, the commit fetched.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { missing, npmImage, npmSettings, Owner } from "./owner.mjs";

async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args });
  return { text: result.content[0].text, failed: result.isError === true };
}

async function toolNames(client) {
  return (await client.listTools()).tools.map((tool) => tool.name);
}

test("M15: an SDK client works in a VM with a server of npm's, and fetch brings the commit", { skip: missing() }, async (t) => {
  const owner = new Owner(t, npmSettings, { "hello.txt": "hello wrold\n" });
  // The control for the trust: what the repository asks for is nothing before the owner agrees.
  const untrusted = owner.run("create", "--branch", "sdk");
  assert.equal(untrusted.status, 2, untrusted.stderr);
  assert.match(untrusted.stderr, /MCP server filesystem: \+ mcp-server-filesystem \/workspace/);
  owner.ok("trust", "--yes");
  owner.ok(...npmImage);
  owner.ok("create", "--branch", "sdk");
  owner.ok("start", owner.name);

  const workspace = await owner.connect(t, "workspace");
  const filesystem = await owner.connect(t, "filesystem");
  const own = await toolNames(workspace);
  const other = await toolNames(filesystem);
  for (const name of ["exec", "edit", "git_commit"]) {
    assert.ok(own.includes(name), name);
    assert.ok(!other.includes(name), `${name}: each endpoint has its own server's tools`);
  }
  assert.ok(other.includes("write_file"));
  assert.ok(!own.includes("write_file"));

  const ran = await call(workspace, "exec", { command: "id -un; pwd; git branch --show-current" });
  assert.match(ran.text, /^dev\n\/workspace\nsdk\n\[exited with status 0/);
  const edit = { path: "hello.txt", old_text: "wrold", new_text: "world" };
  assert.equal((await call(workspace, "edit", edit)).failed, false);
  // The control: the same edit does not match a second time.
  assert.equal((await call(workspace, "edit", edit)).failed, true);
  const note = { path: "/workspace/note.txt", content: "from the other server\n" };
  assert.equal((await call(filesystem, "write_file", note)).failed, false);
  assert.equal(
    (await call(filesystem, "write_file", { path: "/etc/note.txt", content: "" })).failed, true);
  await call(workspace, "exec", { argv: ["git", "add", "note.txt"] });
  const commit = await call(workspace, "git_commit", { message: "Mend the greeting" });
  assert.equal(commit.failed, false, commit.text);

  const ref = `refs/remotes/agent-vm/${owner.name}/sdk`;
  assert.throws(() => owner.git("rev-parse", "--verify", "-q", ref), "the control: not here yet");
  owner.ok("fetch", owner.name);
  assert.equal(owner.git("log", "-1", "--format=%s", ref).trim(), "Mend the greeting");
  assert.equal(owner.git("show", `${ref}:hello.txt`), "hello world\n");
  assert.equal(owner.git("show", `${ref}:note.txt`), note.content);
  assert.equal(fs.readFileSync(path.join(owner.repository, "hello.txt"), "utf8"), "hello wrold\n");
  owner.ok("destroy", "--purge", "--yes", owner.name);
});
