'use strict';

// What an end client may try: to choose its own endpoint, address, client, cost or answer. Against a real node and real
// Express; the rows are those of tests/gateways/test_forged.py.
const assert = require('node:assert/strict');
const http = require('node:http');
const { after, describe, test } = require('node:test');
const { rateLimit } = require('../index.js');
const { serve } = require('./serving.js');

const NODE = process.env.TIDEGATE_URL;
const ROWS = JSON.parse(process.env.TIDEGATE_FORGED ?? '{}');
const LIMIT = 3;
const EXPORT_COST = 2;
const ADDRESS_LIMIT = 2;

/** One request with its target as it stands; status and what remains (`null`: no limit counted). */
function ask(base, { target = '/api/users', method = 'GET', headers = {}, from }) {
  const { hostname: host, port } = new URL(base);
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port, path: target, method, headers, localAddress: from }, (response) => {
      const left = response.headers['x-ratelimit-remaining'];
      response.resume().on('end', () => resolve([response.statusCode, left === undefined ? null : Number(left)]));
    });
    request.on('error', reject).end();
  });
}

for (const [nth, version] of ['express', 'express5'].entries()) {
  const express = require(version);
  let used = 100 + nth * 200;
  /** A client that has asked nothing yet. */
  const fresh = () => ({ 'x-api-key': `tg_c${used++}` });

  describe(`forged requests in front of ${version}`, { skip: NODE === undefined && 'needs TIDEGATE_URL' }, () => {
    const open = [];
    const reached = [];
    after(async () => {
      for (const stop of open) await stop();
    });

    async function application() {
      const app = express();
      const limit = rateLimit({ url: NODE, timeoutMs: 5_000 });
      app.use('/api', limit);
      app.post('/api/exports', (_req, res) => (reached.push('exports'), res.end()));
      app.all(/.*/, (_req, res) => (reached.push('other'), res.end()));
      const { url, stop } = await serve(app);
      open.push(stop, () => limit.close());
      return url;
    }

    test('an end client cannot choose its address', async () => {
      const url = await application();
      const from = `127.0.${40 + nth}.1`;
      for (let left = ADDRESS_LIMIT - 1; left >= 0; left--) assert.deepEqual(await ask(url, { from }), [200, left]);
      for (const name of ROWS.addresses) {
        const value = name === 'Forwarded' ? 'for=203.0.113.9' : '203.0.113.9';
        assert.deepEqual(await ask(url, { from, headers: { [name]: value } }), [429, 0], name);
      }
    });

    test('an end client cannot choose its endpoint or method, nor say what only gateways may', async () => {
      const url = await application();
      const forged = [
        ...ROWS.uris.map((name) => [name, '/health']), ...ROWS.methods.map((name) => [name, 'OPTIONS']), ...ROWS.told,
      ];
      for (const [name, value] of forged) {
        const headers = { ...fresh(), [name]: value };
        assert.deepEqual(await ask(url, { headers }), [200, LIMIT - 1], name);
        const costly = await ask(url, { target: '/api/exports', method: 'POST', headers });
        assert.deepEqual(costly, [200, LIMIT - 1 - EXPORT_COST], name);
      }
    });

    test('an end client cannot choose the status of its denial', async () => {
      const url = await application();
      const headers = fresh();
      for (let left = LIMIT - 1; left >= 0; left--) assert.deepEqual(await ask(url, { headers }), [200, left]);
      for (const query of ROWS.queries) assert.deepEqual(await ask(url, { target: `/api/users${query}`, headers }), [429, 0], query);
    });

    test('what Express serves as an endpoint is counted as that endpoint, however its target is written', async () => {
      const url = await application();
      for (const target of [
        'http://elsewhere/api/exports', 'http://elsewhere:1/api/exports?x=1', '/api/exports?x', '/api/exports#x',
        '/api\\exports#x', 'http://elsewhere/api\\exports', '/api/exports?x#y',
      ]) {
        reached.length = 0;
        const [status, left] = await ask(url, { target, method: 'POST', headers: fresh() });
        if (status === 400) continue; // refused by Node itself as no HTTP
        assert.equal(status, 200, target);
        // What Express 5 serves as something else may still have been counted as what Express 4 would serve.
        if (reached[0] === 'exports') assert.equal(left, LIMIT - EXPORT_COST, target);
        else assert.ok(left === LIMIT - 1 || left === LIMIT - EXPORT_COST, target);
      }
      assert.deepEqual(await ask(url, { target: 'http://elsewhere/api/exports', method: 'POST', headers: fresh() }), [200, LIMIT - EXPORT_COST]);
    });
  });
}
