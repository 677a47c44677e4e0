'use strict';

// Does anything pile up? A node that answers, hangs, hangs up and answers nonsense by turns, behind an application under
// load, for TIDEGATE_SOAK_S seconds (default 60), with leases where TIDEGATE_SOAK_LEASES is 1. Prints heap, sockets and handles over time; ends with 1 if they grew.
//   node --expose-gc bench/soak.js
const express = require('express');
const http = require('node:http');
const { rateLimit } = require('../index.js');
const { get, serve } = require('../test/serving.js');

const SOAK_MS = 1_000 * Number(process.env.TIDEGATE_SOAK_S ?? 60);
const AT_ONCE = 32;
const TURN_MS = 700;
const FAULTS = ['sound', 'hangs', 'sound', 'hangs up', 'sound', 'nonsense', 'sound', '500'];
const DECISION = { allowed: true, policy: 'hourly', limit: 9, window_s: 3600, remaining: 8, reset_after_s: 1 };
const LEASE = { granted: 40, lease: 't', expires_in_s: 0.3 };

async function main() {
  let fault = 'sound';
  const node = await serve((request, response) => {
    if (fault === 'hangs') return;
    if (fault === 'hangs up') return request.socket.destroy();
    let body = '';
    request.on('data', (chunk) => (body += chunk)).on('end', () => {
      if (fault === 'nonsense') return response.end('{"decisions":[1]');
      response.statusCode = fault === '500' ? 500 : 200;
      if (request.url.startsWith('/v1/leases')) return response.end(JSON.stringify({ ...DECISION, ...LEASE }));
      response.end(JSON.stringify({ decisions: JSON.parse(body).checks.map(() => DECISION) }));
    });
  });
  const limit = rateLimit({ url: node.url, timeoutMs: 100, leases: process.env.TIDEGATE_SOAK_LEASES === '1' });
  const application = await serve(express().use(limit).get('/', (req, res) => res.end(req.tidegate.source)));
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });
  const told = { policy: 0, node: 0, lease: 0 };
  let asked = 0;
  const began = Date.now();
  const seen = [];
  const late = [];

  async function keepAsking() {
    while (Date.now() - began < SOAK_MS) {
      const sent = performance.now();
      const { status, body } = await get(application.url, { agent });
      if (status !== 200) throw new Error(`answered ${status}`);
      if (performance.now() - sent > 1_000) late.push(performance.now() - sent);
      told[body] += 1;
      asked += 1;
    }
  }

  let turn = 0;
  const turns = setInterval(() => (fault = FAULTS[++turn % FAULTS.length]), TURN_MS);
  const looks = setInterval(() => {
    global.gc?.();
    seen.push({ heap: process.memoryUsage().heapUsed, handles: process.getActiveResourcesInfo().length });
    const { heap, handles } = seen.at(-1);
    console.log(`${asked} asked, ${told.node} by the node, ${told.lease} out of leases, heap ${(heap / 1e6).toFixed(1)} MB, ${handles} handles`);
  }, SOAK_MS / 12);
  await Promise.all(Array.from({ length: AT_ONCE }, keepAsking));
  clearInterval(turns);
  clearInterval(looks);
  agent.destroy();
  await limit.close();
  await application.stop();
  await node.stop();
  const early = seen.slice(2, 5);
  const last = seen.slice(-3);
  const most = (looked, what) => Math.max(...looked.map((one) => one[what]));
  const grew = most(last, 'heap') > 1.3 * most(early, 'heap') || most(last, 'handles') > 1.5 * most(early, 'handles');
  console.log(grew ? 'it grew' : 'nothing grew', `; ${late.length} answers later than a second`);
  process.exitCode = grew || late.length > 0 ? 1 : 0;
}

main();
