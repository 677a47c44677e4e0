'use strict';

// What the middleware adds to a request: `python -m bench.express` starts a node and runs this.
// One request after the other (the median's difference is what a waiting user sees), then 64 at once (CPU time of this
// process, which is server and client in one: the difference is the middleware's).
const express = require('express');
const http = require('node:http');
const { rateLimit } = require('../index.js');
const { get, serve } = require('../test/serving.js');

const { TIDEGATE_URL, TIDEGATE_KEY } = process.env;
const ONE_BY_ONE = 1_500;
const AT_ONCE = 64;
const ROUNDS = 60;

async function main() {
  const limit = rateLimit({ url: TIDEGATE_URL, timeoutMs: 5_000, failPolicy: 'closed' });
  const bare = await application();
  const limited = await application(limit);
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const ask = async (url) => {
    const { status } = await get(`${url}/api/resource1/7`, { headers: { 'x-api-key': TIDEGATE_KEY }, agent });
    if (status !== 200) throw new Error(`answered ${status}`);
  };
  for (const url of [bare.url, limited.url]) for (let nth = 0; nth < 500; nth++) await ask(url);

  const took = { bare: [], limited: [] };
  for (let nth = 0; nth < ONE_BY_ONE; nth++) {
    for (const [name, { url }] of Object.entries({ bare, limited })) {
      const began = process.hrtime.bigint();
      await ask(url);
      took[name].push(Number(process.hrtime.bigint() - began) / 1_000);
    }
  }
  const check = { api_key: TIDEGATE_KEY, ip: '127.0.0.1', method: 'GET', path: '/api/resource1/7' };
  const trips = [];
  for (let nth = 0; nth < ONE_BY_ONE; nth++) {
    const began = process.hrtime.bigint();
    await limit.limiter.check(check);
    trips.push(Number(process.hrtime.bigint() - began) / 1_000);
  }
  const cpu = { bare: 0, limited: 0 };
  const wall = { bare: [], limited: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, { url }] of Object.entries({ bare, limited })) {
      const before = process.cpuUsage();
      const began = process.hrtime.bigint();
      await Promise.all(Array.from({ length: AT_ONCE }, () => ask(url)));
      wall[name].push(Number(process.hrtime.bigint() - began) / 1_000 / AT_ONCE);
      const { user, system } = process.cpuUsage(before);
      cpu[name] += user + system;
    }
  }
  const each = ROUNDS * AT_ONCE;
  print('one after the other, median, µs', median(took.bare), median(took.limited));
  console.log(`of that the way to the node and back alone: ${median(trips).toFixed(0)}`);
  print(`${AT_ONCE} at once, median wall time a request, µs`, median(wall.bare), median(wall.limited));
  print(`${AT_ONCE} at once, CPU of client and server a request, µs`, cpu.bare / each, cpu.limited / each);
  agent.destroy();
  limit.close();
  await bare.stop();
  await limited.stop();
}

function application(...middlewares) {
  const app = express();
  for (const one of middlewares) app.use(one);
  app.get('/api/:resource/:id', (_req, res) => res.json({ ok: true }));
  return serve(app);
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
const print = (what, bare, limited) =>
  console.log(`${what}: ${bare.toFixed(0)} without, ${limited.toFixed(0)} with: +${(limited - bare).toFixed(0)}, ratio ${(limited / bare).toFixed(2)}`);

main();
