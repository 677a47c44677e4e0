'use strict';

// What the middleware adds to a request, with leases and asking the node each time: `python -m tools.bench.express` starts a node and
// runs this. One request after the other (the median's difference is what a waiting user sees), then 64 at once (CPU time of this
// process, which is server and client in one: the difference is the middleware's). The applications take turns.
const express = require('express');
const http = require('node:http');
const { rateLimit } = require('../index.js');
const { get, serve } = require('../test/serving.js');

const { TIDEGATE_URL, TIDEGATE_KEY } = process.env;
const ONE_BY_ONE = 1_500;
const AT_ONCE = 64;
const ROUNDS = 60;

async function main() {
  const options = { url: TIDEGATE_URL, timeoutMs: 5_000, failPolicy: 'closed' };
  const leasing = rateLimit({ ...options, leases: true });
  const asking = rateLimit(options);
  const applications = { without: await application(), leases: await application(leasing), asking: await application(asking) };
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const ask = async ({ url }) => {
    const { status } = await get(`${url}/api/resource1/7`, { headers: { 'x-api-key': TIDEGATE_KEY }, agent });
    if (status !== 200) throw new Error(`answered ${status}`);
  };
  for (const one of Object.values(applications)) for (let nth = 0; nth < 500; nth++) await ask(one);

  const took = { without: [], leases: [], asking: [] };
  for (let nth = 0; nth < ONE_BY_ONE; nth++) {
    for (const [name, one] of Object.entries(applications)) {
      const began = process.hrtime.bigint();
      await ask(one);
      took[name].push(Number(process.hrtime.bigint() - began) / 1_000);
    }
  }
  const check = { api_key: TIDEGATE_KEY, ip: '127.0.0.1', method: 'GET', path: '/api/resource1/7' };
  const trips = [];
  for (let nth = 0; nth < ONE_BY_ONE; nth++) {
    const began = process.hrtime.bigint();
    await asking.limiter.check(check);
    trips.push(Number(process.hrtime.bigint() - began) / 1_000);
  }
  const cpu = { without: [], leases: [], asking: [] };
  const wall = { without: [], leases: [], asking: [] };
  for (let round = 0; round < ROUNDS; round++) {
    const turns = Object.entries(applications);
    for (const [name, one] of round % 2 ? turns : turns.reverse()) {
      const before = process.cpuUsage();
      const began = process.hrtime.bigint();
      await Promise.all(Array.from({ length: AT_ONCE }, () => ask(one)));
      wall[name].push(Number(process.hrtime.bigint() - began) / 1_000 / AT_ONCE);
      const { user, system } = process.cpuUsage(before);
      cpu[name].push((user + system) / AT_ONCE);
    }
  }
  const sources = { node: 0, lease: 0 };
  for (let nth = 0; nth < ONE_BY_ONE; nth++) sources[(await leasing.limiter.check({ ...check, ip: '127.0.0.2' })).source] += 1;
  print('one after the other, median', took);
  console.log(`the way to the node and back alone, median: ${median(trips).toFixed(0)} µs`);
  print(`${AT_ONCE} at once, median wall time a request`, wall);
  print(`${AT_ONCE} at once, median CPU of client and server a request`, cpu);
  console.log(`a lone check, asked ${ONE_BY_ONE} times from nothing: ${sources.lease} out of leases, ${sources.node} by the node`);
  agent.destroy();
  for (const limit of [leasing, asking]) await limit.close();
  for (const { stop } of Object.values(applications)) await stop();
}

function application(...middlewares) {
  const app = express();
  for (const one of middlewares) app.use(one);
  app.get('/api/:resource/:id', (_req, res) => res.json({ ok: true }));
  return serve(app);
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** One line: µs a request, and what either way of the middleware adds to those without it. */
function print(what, values) {
  const [without, leases, asking] = [values.without, values.leases, values.asking].map(median);
  const beside = (figure) => `${figure.toFixed(0)} µs (+${(figure - without).toFixed(0)}, ratio ${(figure / without).toFixed(2)})`;
  console.log(`${what}: ${without.toFixed(0)} µs without, with leases ${beside(leases)}, asking each time ${beside(asking)}`);
}

main();
