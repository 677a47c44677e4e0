'use strict';

// How leases are asked for, spent and returned: with nodes that are played, and against a real one.
const assert = require('node:assert/strict');
const { Agent } = require('node:http');
const { after, describe, test } = require('node:test');
const { Limiter, UnauthorizedError, rateLimit } = require('../index.js');
const { get, serve } = require('./serving.js');

const NODE = process.env.TIDEGATE_URL;
const STRICT_NODE = process.env.TIDEGATE_STRICT_URL;
const TOKEN = process.env.TIDEGATE_TOKEN;
const LEASED_LIMIT = 600;
const PATIENCE_MS = 20_000;
const CHECK = { api_key: 'k', endpoint: 'e' };
const ALLOWED = { allowed: true, policy: 'hourly', limit: 900, window_s: 3600, remaining: 800, reset_after_s: 1 };
const LEASE = { ...ALLOWED, granted: 10, lease: 't', expires_in_s: 1 };
const open = [];
after(async () => {
  for (const stop of open) await stop();
});

/** A limiter with a clock that is played, and a node that answers as `answers` says: by path, `[status, body]` or nothing. */
async function played(options = {}) {
  const asked = [];
  const answers = { '/v1/check/batch': undefined, '/v1/leases': [200, LEASE], '/v1/leases/return': [200, { returned: [] }] };
  const node = await serve((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk)).on('end', () => {
      const members = JSON.parse(body);
      asked.push([request.url, members]);
      const [status, answer] = answers[request.url] ?? [200, { decisions: members.checks?.map(() => ALLOWED) }];
      if (status === 'hangs') return;
      response.statusCode = status;
      response.end(JSON.stringify(answer));
    });
  });
  let nowMs = 0;
  const errors = [];
  const limiter = new Limiter({ url: node.url, leases: true, timeoutMs: 2_000, onError: (error) => errors.push(error), ...options }, () => nowMs);
  open.push(node.stop, () => limiter.close());
  return {
    answers, asked, errors, limiter, node,
    pass: (ms) => (nowMs += ms),
    count: (path) => asked.filter(([url]) => url === path).length,
    /** Ask once, so that the next question is worth a lease. */
    async oftenEnough() {
      assert.equal((await limiter.check(CHECK)).source, 'node');
      nowMs += 100;
    },
    sources: async (times) => {
      const sources = [];
      for (let nth = 0; nth < times; nth++) sources.push((await limiter.check(CHECK)).source);
      return sources;
    },
  };
}

/** Until it is so, or the test fails. */
async function until(isSo) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert.ok(performance.now() < deadline, 'it never was');
    await new Promise(setImmediate);
  }
}

describe('leases', () => {
  test('are off unless they are asked for', async () => {
    const one = await played({ leases: undefined });
    await one.oftenEnough();
    assert.deepEqual([await one.sources(3), one.count('/v1/leases')], [['node', 'node', 'node'], 0]);
  });

  test('are asked for by the check and its demand, spent at once, renewed ahead, and their rest goes back to where they came from', async () => {
    const one = await played();
    await one.oftenEnough();
    assert.deepEqual(await one.sources(8), Array(8).fill('lease'), 'without a node in between');
    assert.deepEqual(one.asked[1], ['/v1/leases', { ...CHECK, units: 20, ttl_s: 1 }]);
    await until(() => one.count('/v1/leases') === 2);
    await until(() => one.count('/v1/leases/return') === 1);
    assert.deepEqual(one.asked.at(-1)[1], { returns: [{ lease: 't', unused: 2 }] });
    let told;
    one.limiter.ask({ ...CHECK, cost: 3 }, (decision) => (told = decision));
    assert.deepEqual([told.source, told.remaining, Object.isFrozen(told)], ['lease', 800, true], 'decided in the same turn');
    await one.limiter.close();
    assert.deepEqual(one.asked.at(-1), ['/v1/leases/return', { returns: [{ lease: 't', unused: 7 }] }]);
    assert.equal((await one.limiter.check(CHECK)).source, 'policy');
  });

  test('whose time is over are lost: nothing is spent of them, and nothing returned', async () => {
    const one = await played();
    await one.oftenEnough();
    assert.deepEqual(await one.sources(1), ['lease']);
    one.answers['/v1/leases'] = [503, { error: 'store_unavailable' }];
    one.pass(1_000);
    assert.deepEqual(await one.sources(2), ['node', 'node'], 'without its store a node lends nothing and decides all the same');
    assert.deepEqual(one.errors, []);
    await one.limiter.close();
    assert.equal(one.count('/v1/leases/return'), 0);
  });

  test('are not waited for by other checks, costs that are none, or long ones', async () => {
    const one = await played();
    await one.oftenEnough();
    one.answers['/v1/leases'] = ['hangs'];
    const waits = one.limiter.check(CHECK);
    for (const other of [{ api_key: 'other' }, { ...CHECK, cost: 0 }, { ...CHECK, cost: 1.5 }, { path: `/${'x'.repeat(2_000)}` }]) {
      assert.equal((await one.limiter.check(other)).source, 'node');
    }
    assert.equal(one.limiter._book.accounts.size, 2);
    await one.node.stop();
    assert.equal((await waits).source, 'policy');
  });

  test('that are denied deny all who wait, and are remembered', async () => {
    const one = await played();
    await one.oftenEnough();
    one.answers['/v1/leases'] = [429, { ...ALLOWED, allowed: false, status: 429, retry_after_s: 5, granted: 0, lease: null, expires_in_s: 0 }];
    const told = await Promise.all([CHECK, CHECK, CHECK].map((check) => one.limiter.check(check)));
    assert.deepEqual(told.map(({ status, source }) => [status, source]), Array(3).fill([429, 'node']));
    assert.deepEqual(await one.sources(2), ['memory', 'memory']);
    assert.deepEqual(one.asked.map(([path]) => path), ['/v1/check/batch', '/v1/leases']);
    one.pass(1_000);
    one.answers['/v1/leases'] = [200, LEASE];
    assert.deepEqual(await one.sources(1), ['lease']);
  });

  test('that a node cannot give, or answers wrongly, are asked for again later, and meanwhile it decides', async () => {
    for (const [answer, afterMs] of [
      [[200, { ...LEASE, granted: 0, lease: null, reason: 'a sliding log' }], 5_000], [[200, { ...LEASE, granted: 1e99 }], 5_000],
      [[200, [1]], 200], [[422, { status: 422, error: 'invalid' }], 200],
    ]) {
      const one = await played();
      await one.oftenEnough();
      one.answers['/v1/leases'] = answer;
      assert.deepEqual(await one.sources(5), Array(5).fill('node'));
      assert.equal(one.count('/v1/leases'), 1);
      one.answers['/v1/leases'] = [200, LEASE];
      one.limiter._book.accounts.get(JSON.stringify(CHECK)).wanted = 1_000;
      one.pass(afterMs);
      assert.deepEqual(await one.sources(1), ['lease']);
    }
  });

  test('carry on without a node until they are spent; then the policy decides, and closing ends in time', async () => {
    const one = await played({ failPolicy: 'closed', timeoutMs: 300 });
    await one.oftenEnough();
    assert.deepEqual(await one.sources(1), ['lease']);
    for (const path of Object.keys(one.answers)) one.answers[path] = ['hangs'];
    assert.deepEqual(await one.sources(9), Array(9).fill('lease'));
    const began = performance.now();
    assert.deepEqual([await one.sources(2), one.errors.length > 0], [['policy', 'policy'], true]);
    await one.limiter.close();
    assert.ok(performance.now() - began < PATIENCE_MS / 2);
  });

  test('a renewal does not wait for the return of the lease before', async () => {
    const one = await played();
    one.answers['/v1/leases/return'] = ['hangs'];
    await one.oftenEnough();
    await one.sources(1);
    await until(async () => (await one.sources(1), one.count('/v1/leases') >= 10));
    assert.deepEqual(one.errors, []);
    await one.node.stop();
  });
});

describe('a gateway token that the node does not know', () => {
  /** What is warned of while `work` goes on. */
  async function warned(work) {
    const warnings = [];
    const listen = (warning) => warnings.push(warning.code);
    process.on('warning', listen);
    await work();
    await new Promise(setImmediate);
    process.off('warning', listen);
    return warnings;
  }

  test('is warned of once and told to onError; who passes is the policy\'s matter', async () => {
    const one = await played({ leases: false });
    one.answers['/v1/check/batch'] = [401, { status: 401, title: 'Unauthorized' }];
    const codes = await warned(async () => {
      const [first, second] = [await one.limiter.check(CHECK), await one.limiter.check(CHECK)];
      assert.deepEqual([first.allowed, first.source, second.allowed], [true, 'policy', true]);
      await until(async () => (await one.limiter.check(CHECK), one.count('/v1/check/batch') >= 2));
    });
    assert.deepEqual(codes, ['TIDEGATE_UNAUTHORIZED']);
    assert.ok(one.errors[0] instanceof UnauthorizedError);
    assert.match(one.errors[0].message, /\/v1\/check\/batch answered 401: .*token/);
  });

  test('borrows nothing, and checks go on', { skip: STRICT_NODE === undefined && 'needs TIDEGATE_STRICT_URL' }, async () => {
    const errors = [];
    let nowMs = 0;
    const limiter = new Limiter({ url: STRICT_NODE, leases: true, timeoutMs: 5_000, onError: (error) => errors.push(error) }, () => nowMs);
    const codes = await warned(async () => {
      for (let nth = 0; nth < 4; nth++, nowMs += 100) assert.equal((await limiter.check({ api_key: 'tg_rich' })).source, 'node');
    });
    assert.deepEqual([codes, errors.map(({ constructor }) => constructor)], [['TIDEGATE_UNAUTHORIZED'], [UnauthorizedError]]);
    await limiter.close();
    const wrong = new Limiter({ url: STRICT_NODE, token: `${TOKEN}x`, failPolicy: 'closed', onError: (error) => errors.push(error) });
    assert.equal((await wrong.check({ api_key: 'tg_rich' })).error, 'rate_limiter_unavailable');
    assert.ok(errors.at(-1) instanceof UnauthorizedError);
    await wrong.close();
  });

  test('an end client whose key is unknown is refused, and nothing is said of tokens', { skip: STRICT_NODE === undefined && 'needs TIDEGATE_STRICT_URL' }, async () => {
    const errors = [];
    const limiter = new Limiter({ url: STRICT_NODE, token: TOKEN, leases: true, leaseAfterPerS: 0, timeoutMs: 5_000, onError: (error) => errors.push(error) });
    const told = await Promise.all([1, 2].map(() => limiter.check({ api_key: 'tg_nobody' })));
    assert.deepEqual(told.map(({ status, source }) => [status, source]), Array(2).fill([401, 'node']));
    assert.deepEqual(errors, []);
    await limiter.close();
  });
});

describe('leases of a real node', { skip: NODE === undefined && 'needs TIDEGATE_URL' }, () => {
  const leftOf = async (client) => (await asker.check({ client, cost: 0 })).remaining;
  const asker = new Limiter({ url: NODE ?? 'http://127.0.0.1:9', timeoutMs: 5_000, rememberDenialsMs: 0 });
  after(() => asker.close());

  test('two limiters admit exactly the limit', async () => {
    const client = 'leased-0';
    const options = { url: NODE, leases: true, leaseMs: 5_000, rememberDenialsMs: 50, timeoutMs: 5_000 };
    const limiters = [new Limiter(options), new Limiter(options)];
    const sources = new Set();
    let admitted = 0;
    await until(async () => {
      const asked = limiters.flatMap((limiter) => Array.from({ length: 5 }, () => limiter.check({ client })));
      const answers = await Promise.all(asked);
      for (const { source } of answers) sources.add(source);
      admitted += answers.filter(({ allowed }) => allowed).length;
      assert.ok(admitted <= LEASED_LIMIT);
      return answers.every(({ allowed }) => !allowed) && (await leftOf(client)) === 0;
    });
    for (const limiter of limiters) await limiter.close();
    assert.ok(sources.has('lease') && sources.has('node'));
    assert.equal(admitted + (await leftOf(client)), LEASED_LIMIT, 'what was still held came back');
  });

  test('what is not spent comes back when its time ends; what was not returned in time is lost', async () => {
    for (const [client, isLate] of [['leased-1', false], ['leased-2', true]]) {
      let lateMs = 0;
      const leaseMs = isLate ? 5_000 : 400;
      const limiter = new Limiter({ url: NODE, leases: true, leaseMs, timeoutMs: 5_000 }, () => performance.now() + lateMs);
      let admitted = 0;
      await until(async () => (admitted += 1, (await limiter.check({ client })).source === 'lease'));
      const { left } = limiter._book.accounts.get(JSON.stringify({ client })).lease;
      assert.ok(left > 0);
      if (isLate) {
        lateMs = leaseMs;
        await limiter.close();
        assert.equal(await leftOf(client), LEASED_LIMIT - admitted - left);
      } else await until(async () => (await leftOf(client)) === LEASED_LIMIT - admitted);
      await limiter.close();
    }
  });

  test('the middleware answers out of a lease, with its headers, up to the limit', async () => {
    const limit = rateLimit({ url: NODE, leases: true, leaseMs: 5_000, timeoutMs: 5_000, limitBy: 'client', keyGenerator: () => 'leased-3' });
    const seen = { 200: 0, 429: 0 };
    const sources = new Set();
    const app = await serve((request, response) => limit(request, response, () => (sources.add(request.tidegate.source), response.end())));
    open.push(app.stop, () => limit.close());
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    await until(async () => {
      for (const { status, headers } of await Promise.all(Array.from({ length: 8 }, () => get(app.url, { agent })))) {
        seen[status] += 1;
        assert.equal(headers['x-ratelimit-limit'], String(LEASED_LIMIT));
        assert.ok(status === 200 || headers['retry-after'] > 0);
      }
      return seen[429] > 0 && (await leftOf('leased-3')) === 0;
    });
    agent.destroy();
    await limit.close();
    assert.ok(sources.has('lease'));
    assert.equal(seen[200] + (await leftOf('leased-3')), LEASED_LIMIT);
  });
});
