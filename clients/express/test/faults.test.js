'use strict';

// What nodes can do wrong. No real node is needed: these are worse ones.
const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const { join } = require('node:path');
const { promisify } = require('node:util');
const { after, describe, test } = require('node:test');
const { Limiter, rateLimit } = require('../index.js');
const { Nodes } = require('../lib/nodes.js');
const { get, serve, serveRaw } = require('./serving.js');

const TIMEOUT_MS = 300;
const SLACK_MS = 2_000; // of a busy machine: what hangs, hangs longer
const open = [];
after(async () => {
  for (const stop of open) await stop();
});

async function broken(onData) {
  const node = await serveRaw(onData);
  open.push(node.stop);
  return node.url;
}

function limiterOf(url, options = {}) {
  const limiter = new Limiter({ url, timeoutMs: TIMEOUT_MS, ...options });
  open.push(() => limiter.close());
  return limiter;
}

const answer = (body, status = '200 OK') =>
  `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const DECISION = { allowed: true, policy: 'hourly', limit: 9, window_s: 3600, remaining: 8, reset_after_s: 1 };

const FAULTS = {
  hangs: () => {},
  'hangs up': (socket) => socket.destroy(),
  'answers half': (socket) => socket.end(answer('{"decisions":[').slice(0, -3)),
  'answers no HTTP': (socket) => socket.end('SSH-2.0-OpenSSH_9.6\r\n'),
  'answers no JSON': (socket) => socket.write(answer('<html>')),
  'answers another shape': (socket) => socket.write(answer('{"decisions":{"0":1}}')),
  'answers too few': (socket) => socket.write(answer('{"decisions":[]}')),
  'answers a decision that is none': (socket) => socket.write(answer('{"decisions":[{"allowed":"yes"}]}')),
  'answers a policy that would split a header': (socket) =>
    socket.write(answer(JSON.stringify({ decisions: [{ ...DECISION, policy: 'x\r\nSet-Cookie: a=b' }] }))),
  'answers a limit that is no number': (socket) =>
    socket.write(answer(JSON.stringify({ decisions: [{ ...DECISION, limit: { toString: 1 } }] }))),
  'answers null': (socket) => socket.write(answer('{"decisions":[null]}')),
  'answers 500': (socket) => socket.write(answer('{"decisions":[]}', '500 Oops')),
  'answers 503 for ever': (socket) => socket.write(answer('', '503 Service Unavailable')),
  'answers without end': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
    const timer = setInterval(() => socket.write('5\r\nxxxxx\r\n'), 10);
    socket.on('close', () => clearInterval(timer));
  },
  'answers more than fits': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n');
    socket.write('x'.repeat(5_000_000));
  },
};

describe('a node that', () => {
  for (const [fault, onData] of Object.entries(FAULTS)) {
    test(`${fault} leads to the policy in time, and is asked once`, async () => {
      for (const failPolicy of ['open', 'closed']) {
        let asked = 0;
        const url = await broken((socket, data) => {
          if (data.toString().startsWith('POST ')) asked += 1;
          onData(socket);
        });
        const errors = [];
        const limiter = limiterOf(url, { failPolicy, onError: (error) => errors.push(error) });
        const began = performance.now();
        const decision = await limiter.check({ api_key: 'k' });
        assert.ok(performance.now() - began < TIMEOUT_MS + SLACK_MS);
        assert.deepEqual(
          [decision.allowed, decision.status, decision.source, decision.degraded],
          failPolicy === 'open' ? [true, 200, 'policy', true] : [false, 503, 'policy', true],
        );
        assert.equal(asked, 1, 'what was sent is never repeated');
        assert.equal(errors.length, 1);
        limiter.close();
      }
    });
  }

  test('is not there leads to the policy at once', async () => {
    const { url, stop } = await serve(() => {});
    await stop();
    const began = performance.now();
    assert.equal((await limiterOf(url, { failPolicy: 'closed', timeoutMs: 10_000 }).check({})).status, 503);
    assert.ok(performance.now() - began < 10_000);
  });

  test('hangs holds up the first request, not the next: it rests', async () => {
    const limiter = limiterOf(await broken(() => {}), { timeoutMs: 2_000 });
    await limiter.check({});
    const began = performance.now();
    assert.equal((await limiter.check({})).source, 'policy');
    assert.ok(performance.now() - began < 2_000);
  });

  test('comes back is asked again', async () => {
    let sound = false;
    const url = await broken((socket) => {
      if (sound) socket.write(answer(JSON.stringify({ decisions: [DECISION] })));
      else socket.destroy();
    });
    const limiter = limiterOf(url);
    assert.equal((await limiter.check({})).source, 'policy');
    sound = true;
    const until = performance.now() + 5_000;
    let decision;
    do decision = await limiter.check({});
    while (decision.source === 'policy' && performance.now() < until);
    assert.deepEqual([decision.source, decision.remaining], ['node', 8]);
  });

  test('failed rests no longer for a clock that is set back', async () => {
    let sound = false;
    const limiter = limiterOf(
      await broken((socket) => {
        if (sound) socket.write(answer(JSON.stringify({ decisions: [DECISION] })));
        else socket.destroy();
      }),
    );
    assert.equal((await limiter.check({})).source, 'policy');
    sound = true;
    const { now } = Date;
    Date.now = () => now() - 3_600_000;
    try {
      const until = performance.now() + 5_000;
      let decision;
      do decision = await limiter.check({});
      while (decision.source === 'policy' && performance.now() < until);
      assert.equal(decision.source, 'node');
    } finally {
      Date.now = now;
    }
  });

  test('is gone leaves the work to the next one; a request that was sent stays where it is', async () => {
    const { url: gone, stop } = await serve(() => {});
    await stop();
    let asked = 0;
    const sound = await broken((socket) => {
      asked += 1;
      socket.write(answer(JSON.stringify({ decisions: [DECISION] })));
    });
    assert.equal((await limiterOf([gone, sound]).check({})).source, 'node');
    assert.equal(asked, 1);
    const cutting = await broken((socket) => socket.destroy());
    assert.equal((await limiterOf([cutting, sound]).check({})).source, 'policy');
    assert.equal(asked, 1);
  });
});

describe('batches', () => {
  test('what is asked together goes together, at most two batches at a time', async () => {
    const sizes = [];
    let inFlight = 0;
    let most = 0;
    const node = await serve((request, response) => {
      most = Math.max(most, ++inFlight);
      let body = '';
      request.on('data', (chunk) => (body += chunk)).on('end', () => {
        const { checks } = JSON.parse(body);
        sizes.push(checks.length);
        setTimeout(() => {
          inFlight -= 1;
          response.end(JSON.stringify({ decisions: checks.map(({ cost }) => ({ ...DECISION, remaining: cost })) }));
        }, 5);
      });
    });
    open.push(node.stop);
    const limiter = limiterOf(node.url, { maxBatch: 50, timeoutMs: 5_000 });
    const asked = Array.from({ length: 1_000 }, (_, cost) => limiter.check({ cost }));
    const decisions = await Promise.all(asked);
    assert.deepEqual(decisions.map(({ remaining }) => remaining), asked.map((_, at) => at));
    assert.ok(Math.max(...sizes) <= 50);
    assert.equal(sizes.length, 20);
    assert.equal(most, 2);
  });

  test('a node that refuses large batches of strangers gets small ones, also of what was on its way', async () => {
    const held = [];
    const sizes = [];
    const node = await serve((request, response) => {
      let body = '';
      request.on('data', (chunk) => (body += chunk)).on('end', () => {
        const { checks } = JSON.parse(body);
        sizes.push(checks.length);
        const decide = () => {
          if (checks.length > 10) response.writeHead(403).end('{"status":403}');
          else response.end(JSON.stringify({ decisions: checks.map(() => DECISION) }));
        };
        if (checks.length <= 10) return decide();
        held.push(decide);
        if (held.length === 2) held.forEach((refuse) => refuse()); // both were on their way
      });
    });
    open.push(node.stop);
    const limiter = limiterOf(node.url, { maxBatch: 30, timeoutMs: 5_000 });
    const decisions = await Promise.all(Array.from({ length: 60 }, () => limiter.check({})));
    assert.deepEqual([...new Set(decisions.map(({ source }) => source))], ['node']);
    assert.deepEqual(sizes, [30, 30, 10, 10, 10, 10, 10, 10]);
  });

  test('connections are kept', async () => {
    const seen = new Set();
    const node = await serve((request, response) => {
      seen.add(request.socket.remotePort);
      request.resume().on('end', () => response.end(JSON.stringify({ decisions: [DECISION] })));
    });
    open.push(node.stop);
    const limiter = limiterOf(node.url);
    for (let nth = 0; nth < 50; nth++) assert.equal((await limiter.check({})).source, 'node');
    assert.equal(seen.size, 1);
  });

  test('given up requests leave no connection and no memory behind', async () => {
    const node = await serveRaw(() => {});
    open.push(node.stop);
    const limiter = limiterOf(node.url, { timeoutMs: 20 });
    await Promise.all(Array.from({ length: 500 }, () => limiter.check({})));
    const until = performance.now() + 5_000;
    while (node.sockets.size > 0 && performance.now() < until) await new Promise(setImmediate);
    assert.equal(node.sockets.size, 0);
    assert.deepEqual([limiter._queue.length, limiter._inFlight], [0, 0]);
  });

  test('does not finish the handshake of TLS leaves the work to the next one: nothing was sent', async () => {
    const sound = await broken((socket) => socket.write(answer(JSON.stringify({ decisions: [DECISION] }))));
    for (const onHello of [(socket) => socket.destroy(), () => {}]) {
      let hellos = 0;
      const halting = await broken((socket) => (hellos++, onHello(socket)));
      const limiter = limiterOf([halting.replace('http:', 'https:'), sound], { timeoutMs: 3_000 });
      assert.deepEqual([(await limiter.check({})).source, hellos], ['node', 1]);
    }
  });

  test('fails several at once rests once for that', async () => {
    const nodes = new Nodes([await broken((socket) => socket.destroy())], { maxSockets: 8, connectMs: 1_000 });
    open.push(() => nodes.close());
    await Promise.all(Array.from({ length: 8 }, () => new Promise((done) => nodes.post('/v1/check/batch', '{}', done))));
    assert.equal(nodes._nodes[0]._restMs, 100);
  });

  test('an onError that throws costs nobody the answer of the policy', async () => {
    const url = await broken((socket) => socket.destroy());
    const script = `
      const { Limiter } = require('./index.js');
      process.on('uncaughtException', (error) => console.log(error.message));
      const onError = () => { throw new Error('mine'); };
      const ask = async (options) => {
        const limiter = new Limiter({ url: '${url}', timeoutMs: 2_000, onError, ...options });
        const told = await Promise.all([limiter.check({}), limiter.check({})]);
        console.log(told.map(({ source }) => source).join(), (await limiter.check({})).source);
        await limiter.close();
      };
      ask({}).then(() => ask({ leases: true, leaseAfterPerS: 0 }));`;
    const run = promisify(execFile)(process.execPath, ['-e', script], { cwd: join(__dirname, '..'), timeout: 10_000 });
    const lines = (await run).stdout.trim().split('\n').filter((line) => line !== 'mine');
    assert.deepEqual(lines, ['policy,policy policy', 'policy,policy policy']);
  });

  test('a callback that throws costs the others nothing', async () => {
    const url = await broken((socket) => socket.write(answer(JSON.stringify({ decisions: [DECISION, DECISION] }))));
    // In a process of its own: here the test runner would take what is thrown for its own.
    const script = `
      const { Limiter } = require('./index.js');
      const limiter = new Limiter({ url: '${url}' });
      process.once('uncaughtException', (error) => console.log(error.message));
      limiter.ask({}, () => { throw new Error('mine'); });
      limiter.ask({}, ({ source }) => { console.log(source); limiter.close(); });`;
    const run = promisify(execFile)(process.execPath, ['-e', script], { cwd: join(__dirname, '..'), timeout: 10_000 });
    assert.equal((await run).stdout, 'node\nmine\n');
  });
});

describe('without Express', () => {
  test('a plain server is limited as well', async () => {
    const url = await broken((socket) => socket.destroy());
    for (const [failPolicy, status] of [['open', 204], ['closed', 503]]) {
      const limit = rateLimit({ url, failPolicy, timeoutMs: TIMEOUT_MS });
      const server = await serve((request, response) =>
        limit(request, response, (error) => {
          response.statusCode = error ? 500 : 204;
          response.end();
        }),
      );
      open.push(server.stop, () => limit.close());
      const told = await get(server.url);
      assert.equal(told.status, status);
      if (status === 503) assert.equal(JSON.parse(told.body).error, 'rate_limiter_unavailable');
    }
  });

  test('options that cannot work are refused by name', () => {
    const url = 'http://127.0.0.1:9';
    for (const [options, named] of [
      [{}, /url/], [{ url: [] }, /url/], [{ url: 'ftp://x' }, /url/], [{ url, timeoutMs: 0 }, /timeoutMs/],
      [{ url, failPolicy: 'maybe' }, /failPolicy/], [{ url, maxBatch: 0 }, /maxBatch/], [{ url, limitBy: 'x' }, /limitBy/],
      [{ url, leases: 'yes' }, /leases/],
      [{ url, leaseMs: 20_000 }, /leaseMs/], [{ url, maxLeaseUnits: 0 }, /maxLeaseUnits/], [{ url, rememberDenialsMs: -1 }, /rememberDenialsMs/],
      [{ url, maxAccounts: NaN }, /maxAccounts/], [{ url, limitBy: 'client' }, /keyGenerator/], [{ url, headers: 'none' }, /headers/],
    ]) assert.throws(() => rateLimit(options), named);
  });

  test('it is there for import as well', async () => {
    const module = await import('../index.mjs');
    assert.equal(module.rateLimit, rateLimit);
  });
});
