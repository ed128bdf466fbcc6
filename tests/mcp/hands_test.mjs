// Hands for an agent: language servers and a browser in a VM without any network, each driven by
// the official client. Builds an image of its own when there is none: some minutes, and under
// emulation the browser's are long.
import assert from "node:assert/strict";
import test from "node:test";
import { missing, Owner } from "./owner.mjs";
import { decodePng } from "./png.mjs";

const variant = "browser+language-servers";
const settings = `
[vm]
memory = "2G"
cpus = 2
[image]
variant = "${variant}"
[mcp.servers.code]
command = ["/usr/lib/agent-vm/agent-lsp"]
[mcp.servers.browser]
command = ["/usr/lib/agent-vm/agent-browser"]
[network]
mode = "off"
`;

const compile = (file) => ({ directory: "/workspace", file, arguments: ["c++", "-c", file] });
const files = {
  ".gitignore": ".cache/\n", // of clangd
  "cpp/area.h": "#pragma once\nint square_area(int side);\n",
  "cpp/area.cpp": '#include "area.h"\n\n// The area of a square.\nint square_area(int side) {\n  return side * side;\n}\n',
  "cpp/main.cpp": '#include <string>\n#include "area.h"\n\nint main() { return square_area(std::string("ab").size()); }\n',
  "compile_commands.json": JSON.stringify([compile("cpp/area.cpp"), compile("cpp/main.cpp")]),
  "ts/greeter.ts": "// ☺\nexport class Greeter {\n  greet(name: string): string {\n    return `hello ${name}`;\n  }\n}\n",
  "ts/main.ts": 'import { Greeter } from "./greeter";\n\nconsole.log(new Greeter().greet("you"));\n',
  "tsconfig.json": '{ "compilerOptions": { "strict": true }, "include": ["ts/*.ts"] }\n',
  "py/shapes.py": '"""Shapes."""\n\n\nclass Shape:\n    def area(self) -> int:\n        return 1\n\n\ndef make() -> Shape:\n    return Shape()\n',
  "py/app.py": "from shapes import make\n\nprint(make().area())\n",
  "site/index.html": `<!doctype html><title>Hands</title>
<body style="background: linear-gradient(red, blue)">
<h1 id="state">not yet</h1>
<button onclick="document.getElementById('state').textContent = 'pressed ' + 6 * 7">Press</button>
`,
};

// Emulated, on a machine that others use, too.
const patience = { timeout: 600_000 };

async function call(client, name, args) {
  const result = await client.callTool({ name, arguments: args }, undefined, patience);
  const text = result.content.map((part) => part.text ?? "").join("\n");
  return { text, failed: result.isError === true, content: result.content };
}

async function ok(client, name, args) {
  const result = await call(client, name, args);
  assert.equal(result.failed, false, `${name}: ${result.text}`);
  return result;
}

async function until(what, attempt) {
  const end = Date.now() + patience.timeout;
  for (;;) {
    const result = await attempt();
    if (result.done || Date.now() > end) {
      assert.ok(result.done, `${what}: ${result.seen}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function connect(t, owner, server) {
  let client;
  // The gateway answers 503 when a server takes more than a minute to start.
  await until(`connecting to ${server}`, async () => {
    try {
      client = await owner.connect(t, server, patience);
      return { done: true };
    } catch (error) {
      return { done: false, seen: error.message };
    }
  });
  return client;
}

async function screenshot(browser) {
  const { content, text } = await ok(browser, "browser_take_screenshot", { type: "png" });
  const image = content.find((part) => part.type === "image");
  assert.ok(image, text);
  assert.equal(image.mimeType, "image/png");
  return decodePng(Buffer.from(image.data, "base64"));
}

async function tryLanguages(t, owner, workspace) {
  const code = await connect(t, owner, "code");
  const places = [
    ["ts/main.ts", "greet", 3, "ts/greeter.ts:3:3: greet(name: string): string {"],
    ["py/app.py", "area", 3, "py/shapes.py:5:9: def area(self) -> int:"],
    // In another unit: known once the index is complete, the header's declaration before.
    ["cpp/main.cpp", "square_area", 4, "cpp/area.cpp:4:5: int square_area(int side) {"],
  ];
  for (const [path, symbol, line, expected] of places) {
    await t.test(`a definition: ${path} to ${expected}`, async () => {
      await until(path, async () => {
        const { text } = await ok(code, "definition", { path, symbol, line });
        return { done: text.trim() === expected, seen: text };
      });
    });
  }
  await t.test("a definition in a standard library: it is in the image", async () => {
    const { text } = await ok(code, "definition", { path: "cpp/main.cpp", symbol: "string", line: 4 });
    assert.match(text, /^\/usr\/include\/c\+\+\/\d+\/bits\//);
    assert.match((await ok(code, "hover", { path: "py/shapes.py", symbol: "int" })).text, /class int/);
  });
  await t.test("references and outline", async () => {
    const { text } = await ok(code, "references", { path: "py/shapes.py", symbol: "make" });
    assert.deepEqual(text.trim().split("\n").map((line) => line.split(": ")[0]).sort(),
      ["py/app.py:1:20", "py/app.py:3:7", "py/shapes.py:9:5"]);
    assert.match((await ok(code, "symbols", { path: "ts/greeter.ts" })).text, /^2: class Greeter\n {2}3: method greet$/m);
  });
  await t.test("an edit by another server is seen at once", async () => {
    await ok(workspace, "edit", { path: "ts/greeter.ts", old_text: "// ☺\n", new_text: "// ☺\n\n\n" });
    const { text } = await ok(code, "definition", { path: "ts/main.ts", symbol: "greet", line: 3 });
    assert.equal(text.trim(), "ts/greeter.ts:5:3: greet(name: string): string {");
  });
  await t.test("what is not there is not found", async () => {
    const wrong = await call(code, "definition", { path: "py/app.py", symbol: "volume" });
    assert.deepEqual([wrong.failed, wrong.text], [true, "py/app.py: volume does not stand in this file"]);
    const line = await call(code, "definition", { path: "py/app.py", symbol: "make", line: 2 });
    assert.match(line.text, /does not stand in line 2; it does in 1, 3/);
    assert.match((await call(code, "symbols", { path: "../etc/passwd.py" })).text, /out of the workspace/);
    assert.match((await call(code, "symbols", { path: "tsconfig.json" })).text, /no language server is known/);
  });
}

async function tryBrowser(t, owner, workspace) {
  await ok(workspace, "exec", {
    argv: ["python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"], cwd: "site", wait: 1 });
  await until("the page's server", async () => {
    const { text } = await ok(workspace, "exec", { command: "curl -s http://127.0.0.1:8080/" });
    return { done: text.includes("Hands"), seen: text };
  });
  const browser = await connect(t, owner, "browser");
  const snapshot = async () => (await ok(browser, "browser_snapshot", {})).text;
  await t.test("the control: a page without content has one colour", async () => {
    await ok(browser, "browser_navigate", { url: "about:blank" });
    assert.equal((await screenshot(browser)).colours, 1);
  });
  await t.test("a page is opened, its button pressed, and its effect seen", async () => {
    await ok(browser, "browser_navigate", { url: "http://127.0.0.1:8080/" });
    const before = await snapshot();
    assert.match(before, /heading "not yet"/);
    assert.doesNotMatch(before, /pressed 42/);
    const [, target] = /button "Press".*\[ref=(\w+)\]/.exec(before);
    await ok(browser, "browser_click", { element: "the button", target });
    assert.match(await snapshot(), /heading "pressed 42"/);
  });
  await t.test("a picture of it", async () => {
    const picture = await screenshot(browser);
    assert.ok(picture.width >= 300 && picture.height >= 200, JSON.stringify(picture));
    assert.ok(picture.colours > 50, JSON.stringify(picture));
  });
  await t.test("the control for the network: no page from outside", async () => {
    const outside = await call(browser, "browser_navigate", { url: "http://example.com/" });
    assert.equal(outside.failed, true, outside.text);
  });
}

test("M15: language servers and a browser in the VM, by the official client", { skip: missing() }, async (t) => {
  const owner = new Owner(t, settings, files);
  owner.ok("trust", "--yes");
  owner.ok("image", "build", "--variant", variant);
  owner.ok("create", "--branch", "sdk");
  owner.ok("start", owner.name);
  const workspace = await owner.connect(t, "workspace");
  await tryLanguages(t, owner, workspace);
  await tryBrowser(t, owner, workspace);
  // Neither leaves anything where the agent's commits come from.
  const { text } = await ok(workspace, "exec", { command: "git status --porcelain" });
  assert.match(text, /^ M ts\/greeter\.ts\n\[exited/);
  owner.ok("destroy", "--purge", "--yes", owner.name);
});
