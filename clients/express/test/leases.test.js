'use strict';

// What is held: never more is let through than was granted in time, whatever the order of events. Time is played.
const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { headersOf } = require('../lib/decision.js');
const { Lease, LeaseBook } = require('../lib/leases.js');

const ALLOWED = { allowed: true, status: 200, source: 'lease', remaining: 1_000, resetAfterS: undefined, retryAfterS: undefined };
const DENIED = { allowed: false, status: 429, source: 'node', retryAfterS: 3 };
const bookOf = (options) =>
  new LeaseBook({ leaseMs: 1_000, leaseAfterPerS: 5, maxLeaseUnits: 1_000, rememberDenialsMs: 1_000, maxAccounts: 100, ...options });
const leaseOf = (units, { token = 't', askedMs = 0, lastsMs = 1_000, decision = ALLOWED } = {}) =>
  new Lease('o', token, units, askedMs, lastsMs, decision);

/** Numbers by chance, the same in every run (mulberry32). */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('a lease', () => {
  test('is never used twice nor after its time, in any order of grants, spending, time and returns', () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = chance(seed);
      const below = (most) => Math.floor(random() * most);
      const book = bookOf();
      const granted = new Map();
      let nowMs = 0;
      const giveBack = (endings) => {
        for (const { lease, unused } of endings) granted.get(lease).used += unused;
      };
      for (let step = 0; step < 60; step++) {
        const what = below(3);
        if (what === 0) {
          const token = `t${granted.size}`;
          const [askedMs, units, lastsMs] = [nowMs, 1 + below(50), 10 + below(2_000)];
          nowMs += below(500);
          granted.set(token, { units, until: askedMs + lastsMs, used: 0 });
          const lease = leaseOf(units, { token, askedMs, lastsMs, decision: { ...ALLOWED, requestId: token } });
          giveBack(book.granted(book.note('k', 0, nowMs), lease));
        } else if (what === 1) {
          const cost = 1 + below(5);
          for (let times = below(20); times > 0; times--) {
            const decision = book.take('k', cost, nowMs);
            if (decision === undefined) break;
            const lease = granted.get(decision.requestId);
            assert.ok(nowMs < lease.until, 'spent after its time');
            lease.used += cost;
          }
        } else {
          nowMs += below(1_500);
          giveBack(book.due(nowMs));
        }
        for (const { units, used } of granted.values()) assert.ok(used <= units);
      }
    }
  });

  test('is returned before its time is over, and lost afterwards', () => {
    const [early, late] = [bookOf(), bookOf()];
    for (const book of [early, late]) {
      book.granted(book.note('k', 0, 0), leaseOf(10));
      assert.deepEqual(book.take('k', 4, 500), ALLOWED);
    }
    assert.deepEqual(early.due(500), []);
    assert.deepEqual(early.due(900), [{ origin: 'o', lease: 't', unused: 6 }]);
    assert.equal(early.take('k', 1, 900), undefined);
    assert.deepEqual(late.due(1_000), []);
    assert.equal(late.take('k', 1, 1_000), undefined);
  });

  test('that runs low is renewed once', () => {
    const book = bookOf();
    book.granted(book.note('k', 0, 0), leaseOf(10));
    for (let nth = 0; nth < 10; nth++) assert.deepEqual(book.take('k', 1, 100), ALLOWED);
    assert.deepEqual(book.low, ['k']);
    assert.equal(book.take('k', 1, 100), undefined);
  });

  test('is as large as the demand, and shrinks near the limit', () => {
    const book = bookOf();
    const account = book.note('k', 0, 0);
    account.wanted = 200;
    assert.equal(book.unitsToAsk(account, 1, 1_000), 200);
    book.granted(account, leaseOf(10, { askedMs: 1_000, decision: { ...ALLOWED, remaining: 20 } }));
    account.wanted = 200;
    assert.deepEqual([book.unitsToAsk(account, 1, 2_000), book.unitsToAsk(account, 15, 2_000)], [10, 15]);
  });

  test('is for those who ask often, one at a time', () => {
    const book = bookOf();
    const account = book.note('k', 1, 0);
    assert.equal(book.wantsLease(account, 20), false, 'too soon to tell');
    account.wanted = 4;
    assert.equal(book.wantsLease(account, 1_000), false);
    account.wanted = 20;
    assert.equal(book.wantsLease(account, 2_000), true);
    account.asking = true;
    assert.equal(book.wantsLease(account, 2_000), false);
  });
});

describe('a denial', () => {
  test('stands for its time, and for no smaller cost', () => {
    const book = bookOf();
    book.denied(book.note('k', 0, 0), DENIED, 3, 0);
    assert.deepEqual(book.take('k', 3, 900), { ...DENIED, source: 'memory', resetAfterS: undefined, retryAfterS: 2.1 });
    assert.equal(book.take('k', 2, 900), undefined);
  });

  test('that is repeated is told once, with its requests and units', () => {
    const book = bookOf();
    const key = JSON.stringify({ client: 'acme' });
    book.denied(book.note(key, 0, 0), { ...DENIED, policy: 'hourly', cause: 'used_up' }, 1, 0);
    assert.equal(book.hasRepeated, false);
    for (const cost of [1, 4]) book.take(key, cost, 100);
    assert.equal(book.hasRepeated, true);
    assert.deepEqual(book.repeated(), [{ client: 'acme', requests: 2, cost: 5, policy: 'hourly', cause: 'used_up' }]);
    assert.deepEqual(book.repeated(), []);
  });

  test('stands for its whole time', () => {
    const book = bookOf();
    book.denied(book.note('k', 0, 0), DENIED, 3, 0);
    assert.equal(book.take('k', 3, 1_000), undefined);
  });

  test('that can end sooner stands no longer than it said; a refusal, and what is not to be remembered, not at all', () => {
    const [book, forgetful] = [bookOf(), bookOf({ rememberDenialsMs: 0 })];
    book.denied(book.note('k', 0, 0), { ...DENIED, retryAfterS: 0.2 }, 1, 0);
    assert.deepEqual([book.take('k', 1, 199)?.source, book.take('k', 1, 200)], ['memory', undefined]);
    book.denied(book.note('r', 0, 0), { ...DENIED, status: 403 }, 1, 0);
    forgetful.denied(forgetful.note('k', 0, 0), DENIED, 1, 0);
    assert.deepEqual([book.take('r', 1, 0), forgetful.take('k', 1, 0)], [undefined, undefined]);
  });
});

test('the times of a held answer count down', () => {
  const book = bookOf({ rememberDenialsMs: 60_000 });
  const decision = { ...ALLOWED, policy: 'hourly', limit: 9, remaining: 5, resetAfterS: 2.5 };
  book.granted(book.note('k', 1, 100_000), leaseOf(10, { askedMs: 100_000, lastsMs: 10_000, decision }));
  const shown = [100_250, 100_750, 102_000, 108_000].map((nowMs) => new Map(headersOf(book.take('k', 1, nowMs), 'both', nowMs)));
  assert.deepEqual(shown.map((lines) => lines.get('RateLimit')), [3, 2, 1, 0].map((t) => `"hourly";r=5;t=${t}`));
  assert.deepEqual(shown.map((lines) => lines.get('X-RateLimit-Reset')), ['103', '103', '103', '108']);

  book.denied(book.note('other', 1, 100_000), { ...DENIED, problem: { retry_after: 3 } }, 1, 100_000);
  const repeated = [100_750, 101_250, 102_750].map((nowMs) => book.take('other', 1, nowMs));
  assert.deepEqual(repeated.map((denial) => new Map(headersOf(denial, 'both', 0)).get('Retry-After')), ['3', '2', '1']);
  assert.deepEqual(repeated.map((denial) => denial.problem.retry_after), [3, 2, 1]);
  assert.equal(book.take('other', 1, 103_000), undefined);
});

describe('accounts', () => {
  test('are bounded; those that wait for a lease stay', () => {
    const book = bookOf({ maxAccounts: 10 });
    for (let nth = 0; nth < 100; nth++) book.note(`${nth}`, 1, 0);
    assert.ok(book.accounts.size <= 10);
    for (const account of book.accounts.values()) account.asking = true;
    for (let nth = 0; nth < 100; nth++) {
      const account = book.note(`w${nth}`, 1, 0);
      if (account !== undefined) account.asking = true;
    }
    assert.deepEqual([book.accounts.size, book.note('more', 1, 0)], [10, undefined]);
  });

  test('that make room give their leases back', () => {
    const book = bookOf({ maxAccounts: 2 });
    for (const [nth, lastsMs] of [1_000, 100].entries()) book.granted(book.note(`${nth}`, 1, 0), leaseOf(10, { token: `t${nth}`, lastsMs }));
    book.note('k', 1, 500);
    assert.deepEqual(book.due(500), [{ origin: 'o', lease: 't0', unused: 10 }], "the other's time was over");
    assert.deepEqual(book.due(500), []);
    book.granted(book.note('k', 1, 500), leaseOf(10, { token: 't2', askedMs: 500 }));
    book.note('0', 1, 500).asking = true;
    book.note('1', 1, 500);
    assert.deepEqual(book.close(500).map(({ lease }) => lease), ['t2']);
    assert.deepEqual([book.accounts.size, book.close(500)], [0, []]);
  });
});
