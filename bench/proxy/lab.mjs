// Both ends of bench/proxy: an HTTPS server, and a client that prints its figures as JSON.
//   lab.mjs serve ADDRESS KEY CERTIFICATE
//   lab.mjs requests|events NAME ADDRESS AUTHORITY
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { setTimeout as after } from 'node:timers/promises';

const SECONDS = 3;
const CONNECTIONS = 8;
const EVENTS = 15;

function serve(address, key, certificate) {
  const server = https.createServer({ key: readFileSync(key), cert: readFileSync(certificate) }, async (request, answer) => {
    const wait = /^\/events\/(\d+)$/.exec(request.url);
    if (!wait) return answer.end('hello\n');
    answer.writeHead(200, { 'content-type': 'text/event-stream' });
    answer.flushHeaders();
    await after(Number(wait[1]));
    answer.write('data: first\n\n');
    await after(5);
    return answer.end('data: last\n\n');
  });
  server.keepAliveTimeout = 60_000;
  server.listen(443, address, () => console.log('ready'));
}

// The request's time until its first byte of body, in seconds.
function get(agent, { name, address, authority }, path) {
  return new Promise((resolve, reject) => {
    const begin = process.hrtime.bigint();
    https.get({ host: address, servername: name, headers: { host: name }, ca: authority, agent, path }, (answer) => {
      let first;
      answer.on('data', () => (first ??= Number(process.hrtime.bigint() - begin) / 1e9));
      answer.on('end', () => (answer.statusCode === 200 ? resolve(first) : reject(new Error(`status ${answer.statusCode}`))));
      answer.on('error', reject);
    }).on('error', reject);
  });
}

async function requests(to) {
  const agent = new https.Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const loop = async (end) => {
    let count = 0;
    for (; performance.now() < end; ++count) await get(agent, to, '/');
    return count;
  };
  const all = (seconds) => {
    const end = performance.now() + seconds * 1000;
    return Promise.all(Array.from({ length: CONNECTIONS }, () => loop(end)));
  };
  await all(1); // connections, certificates
  const counts = await all(SECONDS);
  agent.destroy();
  return { rate: counts.reduce((sum, count) => sum + count) / SECONDS };
}

async function events(to) {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const found = {};
  for (const [label, wait] of [['at once', 0], ['after 100 ms', 100]]) {
    await get(agent, to, `/events/${wait}`);
    const times = [];
    for (let i = 0; i < EVENTS; ++i) times.push(await get(agent, to, `/events/${wait}`));
    found[label] = times.sort((a, b) => a - b)[EVENTS >> 1];
  }
  agent.destroy();
  return found;
}

const [what, ...rest] = process.argv.slice(2);
if (what === 'serve') {
  serve(...rest);
} else {
  const [name, address, file] = rest;
  const to = { name, address, authority: readFileSync(file) };
  console.log(JSON.stringify(await (what === 'events' ? events(to) : requests(to))));
}
