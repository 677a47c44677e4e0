'use strict';

// Against a real node (tests/clients/test_express.py starts it) and real Express, 4 and 5.
const assert = require('node:assert/strict');
const { after, before, describe, test } = require('node:test');
const { Limiter, rateLimit } = require('../index.js');
const { get, serve } = require('./serving.js');

const NODE = process.env.TIDEGATE_URL;
const STRICT_NODE = process.env.TIDEGATE_STRICT_URL;
const TOKEN = process.env.TIDEGATE_TOKEN;
const LIMIT = 3;

let used = 0;
/** A client that has asked nothing yet. */
const fresh = () => `c${used++}`;
const keyed = (client) => ({ headers: { 'x-api-key': `tg_${client}` } });

for (const version of ['express', 'express5']) {
  const express = require(version);

  describe(`in front of ${version}`, { skip: NODE === undefined && 'needs TIDEGATE_URL' }, () => {
    const open = [];
    after(async () => {
      for (const stop of open) await stop();
    });

    /** An application with one route behind the middleware; its URL. */
    async function application(options, prepare = () => {}) {
      const app = express();
      prepare(app);
      const limit = rateLimit({ url: NODE, timeoutMs: 5_000, ...options });
      app.use('/api', limit);
      app.all('/api/:what', (req, res) => res.json({ left: req.tidegate?.remaining ?? null }));
      app.use((error, _req, res, _next) => res.status(500).json({ thrown: error.message }));
      const { url, stop } = await serve(app);
      open.push(stop, () => limit.close());
      return url;
    }

    test('allowed requests carry the headers, denied ones are a problem', async () => {
      const url = await application({});
      const client = fresh();
      for (let left = LIMIT - 1; left >= 0; left--) {
        const answer = await get(`${url}/api/users?x=1`, keyed(client));
        assert.equal(answer.status, 200);
        assert.deepEqual(JSON.parse(answer.body), { left });
        assert.equal(answer.headers['x-ratelimit-limit'], String(LIMIT));
        assert.equal(answer.headers['x-ratelimit-remaining'], String(left));
        assert.equal(answer.headers['ratelimit-policy'], `"hourly";q=${LIMIT};w=3600`);
        assert.match(answer.headers.ratelimit, new RegExp(`^"hourly";r=${left};t=\\d+$`));
        const resetS = Number(answer.headers['x-ratelimit-reset']) - Date.now() / 1000;
        assert.ok(resetS > 0 && resetS <= 7201);
      }
      const denied = await get(`${url}/api/users`, keyed(client));
      const problem = JSON.parse(denied.body);
      assert.equal(denied.status, 429);
      assert.equal(denied.headers['content-type'], 'application/problem+json');
      assert.equal(denied.headers['cache-control'], 'no-store');
      assert.equal(denied.headers['retry-after'], String(problem.retry_after));
      assert.equal(denied.headers.ratelimit, `"hourly";r=0;t=${problem.retry_after}`);
      assert.equal(problem.error, 'rate_limit_exceeded');
      assert.deepEqual(problem['violated-policies'], ['hourly']);
      for (const secret of ['client', 'plan', 'region', 'revision']) assert.ok(!(secret in problem), secret);
    });

    test('the path is the one the end client sent, so endpoints and their costs are found', async () => {
      const url = await application({});
      const client = fresh();
      const costly = await get(`${url}/api/exports`, { ...keyed(client), method: 'POST' });
      assert.equal(costly.headers['x-ratelimit-remaining'], String(LIMIT - 2));
    });

    test('without a key the address counts, which trust proxy may name', async () => {
      const url = await application({}, (app) => app.set('trust proxy', 1));
      const address = `198.51.100.${used++}`;
      const ask = (from) => get(`${url}/api/users`, { headers: { 'x-forwarded-for': from } });
      assert.deepEqual([(await ask(address)).status, (await ask(`1.1.1.1, ${address}`)).status], [200, 200]);
      assert.equal((await ask(address)).status, 429);
      assert.equal((await ask(`198.51.100.${used++}`)).status, 200);
    });

    test('limitBy client and attribute take what keyGenerator says', async () => {
      const client = fresh();
      const byClient = await application({ limitBy: 'client', keyGenerator: async (req) => req.get('x-user') });
      const ask = (user) => get(`${byClient}/api/users`, { headers: { 'x-user': user } });
      for (let nth = 0; nth < LIMIT; nth++) assert.equal((await ask(client)).status, 200);
      assert.equal((await ask(client)).status, 429);
      assert.equal((await ask(fresh())).status, 200);
      assert.equal((await ask('nobody-known')).status, 422, 'a name that the node does not know lets nobody in');
      const byTenant = await application({ limitBy: 'attribute:tenant', keyGenerator: (req) => req.get('x-tenant') });
      const tenant = `t${used++}`;
      const rich = (headers) => get(`${byTenant}/api/users`, { headers: { 'x-api-key': 'tg_tenants', ...headers } });
      assert.equal((await rich({ 'x-tenant': tenant })).status, 200);
      assert.equal((await rich({ 'x-tenant': tenant })).status, 429);
      assert.equal((await rich({ 'x-tenant': `${tenant}x` })).status, 200);
      const number = 1_000 + used++;
      for (const keyGenerator of [() => number, async () => BigInt(number)]) {
        const byNumber = await application({ limitBy: 'attribute:tenant', keyGenerator });
        const answer = await get(`${byNumber}/api/users`, { headers: { 'x-api-key': 'tg_tenants' } });
        assert.equal(answer.status, keyGenerator() === number ? 200 : 429, 'users may have numbers');
      }
    });

    test('endpoint, cost and attributes may be promised', async () => {
      const tenants = await application({ attributes: async (req) => ({ tenant: req.get('x-tenant') }) });
      const ask = (tenant) => get(`${tenants}/api/users`, { headers: { 'x-api-key': 'tg_tenants', 'x-tenant': tenant } });
      const tenant = `t${used++}`;
      const statuses = [];
      for (const one of [tenant, tenant, `${tenant}x`]) statuses.push((await ask(one)).status);
      assert.deepEqual(statuses, [200, 429, 200]);
      const priced = await application({ endpoint: async () => 'export', cost: async () => 1 });
      const answer = await get(`${priced}/api/users`, keyed(fresh()));
      assert.deepEqual([answer.status, answer.headers['x-ratelimit-remaining']], [200, String(LIMIT - 2)]);
      const failing = await application({ attributes: async () => { throw new Error('no tenant'); } });
      assert.deepEqual(JSON.parse((await get(`${failing}/api/users`)).body), { thrown: 'no tenant' });
    });

    test('skip, cost and a handler of one\'s own', async () => {
      const url = await application({
        skip: async (req) => req.path === '/health',
        cost: () => 2,
        handler: (_req, res, _next, decision) => res.status(420).send(`calm for ${decision.retryAfterS > 0}`),
      });
      const client = fresh();
      assert.equal((await get(`${url}/api/health`, keyed(client))).headers.ratelimit, undefined);
      assert.equal((await get(`${url}/api/users`, keyed(client))).headers['x-ratelimit-remaining'], String(LIMIT - 2));
      const denied = await get(`${url}/api/users`, keyed(client));
      assert.deepEqual([denied.status, denied.body], [420, 'calm for true']);
    });

    test('refusals say why: suspended, two keys, a key that is none', async () => {
      const url = await application({});
      const gone = await get(`${url}/api/users`, keyed('gone'));
      assert.deepEqual([gone.status, JSON.parse(gone.body).error], [403, 'client_suspended']);
      const two = await get(`${url}/api/users`, { headers: { 'x-api-key': 'tg_a', authorization: 'Bearer tg_b' } });
      assert.deepEqual([two.status, JSON.parse(two.body).error], [401, 'ambiguous_api_key']);
      assert.equal(two.headers['www-authenticate'], 'ApiKey');
      const long = await get(`${url}/api/users`, { headers: { 'x-api-key': 'k'.repeat(300) } });
      assert.equal(long.status, 401);
    });

    test('what identity functions throw reaches the error handler', async () => {
      for (const broken of [
        { keyGenerator: () => { throw new Error('no identity'); } },
        { skip: async () => { throw new Error('no identity'); } },
        { identify: async () => { throw new Error('no identity'); } },
      ]) {
        const answer = await get(`${await application(broken)}/api/users`);
        assert.deepEqual([answer.status, JSON.parse(answer.body)], [500, { thrown: 'no identity' }]);
      }
    });

    test('a token speaks for clients where the node wants one; without it nothing passes', async () => {
      const ask = { limitBy: 'client', keyGenerator: () => fresh(), url: STRICT_NODE };
      assert.equal((await get(`${await application({ ...ask, token: TOKEN })}/api/users`)).status, 200);
      assert.equal((await get(`${await application(ask)}/api/users`)).status, 403);
    });

    test('an endpoint that is none follows the fail policy, and is said once', async () => {
      const warned = [];
      const listen = (warning) => warned.push(warning.code);
      process.on('warning', listen);
      try {
        const open = await application({ endpoint: 'typo' });
        const closed = await application({ endpoint: 'typo', failPolicy: 'closed' });
        for (let nth = 0; nth < 2; nth++) {
          assert.equal((await get(`${open}/api/users`, keyed(fresh()))).status, 200);
          assert.equal((await get(`${closed}/api/users`, keyed(fresh()))).status, 503);
        }
      } finally {
        process.off('warning', listen);
      }
      assert.deepEqual(warned.filter((code) => code === 'TIDEGATE_MISTAKE').length, 2, 'once a limiter');
    });

    test('headers: standard or legacy alone', async () => {
      const standard = await get(`${await application({ headers: 'standard' })}/api/users`, keyed(fresh()));
      assert.deepEqual(['ratelimit' in standard.headers, 'x-ratelimit-limit' in standard.headers], [true, false]);
      const legacy = await get(`${await application({ headers: 'legacy' })}/api/users`, keyed(fresh()));
      assert.deepEqual(['ratelimit' in legacy.headers, 'x-ratelimit-limit' in legacy.headers], [false, true]);
    });

    test('exactly the limit passes, however many ask at once', async () => {
      const url = await application({});
      const client = fresh();
      const answers = await Promise.all(Array.from({ length: 40 }, () => get(`${url}/api/users`, keyed(client))));
      assert.equal(answers.filter(({ status }) => status === 200).length, LIMIT);
      assert.equal(answers.filter(({ status }) => status === 429).length, 40 - LIMIT);
    });
  });
}

describe('the limiter by itself', { skip: NODE === undefined && 'needs TIDEGATE_URL' }, () => {
  let limiter;
  before(() => (limiter = new Limiter({ url: NODE, timeoutMs: 5_000 })));
  after(() => limiter.close());

  test('a bad check spoils no other of its batch', async () => {
    const client = fresh();
    const checks = [
      { client }, { client: 'nobody' }, { client, cost: NaN }, { client, attributes: { a: '\ud800' } },
      { ip: 'nonsense' }, { client },
    ];
    const decisions = await Promise.all(checks.map((check) => limiter.check(check)));
    assert.deepEqual(decisions.map(({ allowed }) => allowed), [true, false, false, true, false, true]);
    assert.equal(decisions[1].status, 422);
    assert.ok(!JSON.stringify(decisions[0]).includes('undefined'));
  });

  test('long paths together are no batch too long', async () => {
    const client = 'rich';
    const path = `/${'x'.repeat(8_000)}`;
    const asked = Array.from({ length: 400 }, () => limiter.check({ client, method: 'GET', path }));
    const decisions = await Promise.all(asked);
    assert.ok(decisions.every(({ allowed, source }) => allowed && source === 'node'));
  });
});
