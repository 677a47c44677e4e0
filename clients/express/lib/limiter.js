'use strict';

const { accountOf, encoded } = require('./check.js');
const { decisionOf, withoutNode } = require('./decision.js');
const { UnauthorizedError, UnavailableError } = require('./errors.js');
const { LeaseBook } = require('./leases.js');
const { CHECK_BATCH, Nodes } = require('./nodes.js');
const { optionsOf } = require('./options.js');
const { Renewals } = require('./renewals.js');

/**
 * @typedef {import('../index.js').Check} Check
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {import('../index.js').LimiterOptions} LimiterOptions
 */

const BATCHES_IN_FLIGHT = 2;
// A connection must be made in this part of a check's time, so that there is time for the next node.
const CONNECT_SHARE = 1 / 2;
const MOST_CONNECT_MS = 1_000;
const MOST_MISTAKES = 100;
// A node takes 1 MiB; beyond it the whole batch would be refused, and one end client's long path would speak for others.
const MOST_BODY_BYTES = 512 * 1024;
/** What a node takes of a caller without a token, where it does not trust its network. */
const STRANGERS_BATCH = 10;
const STRANGERS_BODY_BYTES = 63 * 1024;

class Pending {
  /**
   * @param {string} body
   * @param {{ key: string, cost: number } | undefined} account
   * @param {number} askedMs
   * @param {(decision: Decision) => void} answer
   */
  constructor(body, account, askedMs, answer) {
    this.body = body;
    this.bytes = Buffer.byteLength(body) + 1;
    this.account = account;
    this.askedMs = askedMs;
    this.answer = answer;
    /** @type {Batch | undefined} */
    this.batch = undefined;
    /** @type {NodeJS.Timeout | undefined} */
    this.timer = undefined;
    this.answered = false;
  }
}

class Batch {
  /** @param {Pending[]} checks */
  constructor(checks) {
    this.checks = checks;
    this.waiting = checks.length;
    this.giveUp = () => {};
  }
}

/** Decides by what is held here, or asks nodes, many checks at once; answers every check within `timeoutMs`. */
class Limiter {
  /** @param {LimiterOptions} options @param {() => number} [now] a clock that only goes forward, in ms */
  constructor(options, now = () => performance.now()) {
    const known = optionsOf(options);
    // Given up connections close a moment later, so there may be more sockets than batches.
    this._nodes = new Nodes(known.urls, {
      token: known.token,
      tls: known.tls,
      maxSockets: 4 * BATCHES_IN_FLIGHT,
      connectMs: Math.min(MOST_CONNECT_MS, known.timeoutMs * CONNECT_SHARE),
    });
    this._options = known;
    this._most = { checks: known.maxBatch, bytes: MOST_BODY_BYTES };
    this._now = now;
    this._decidesHere = known.leases || known.rememberDenialsMs > 0;
    this._book = new LeaseBook(known);
    this._renewals = new Renewals(this._book, this._nodes, known, now, (error) => this._failed(error));
    /** @type {Pending[]} */
    this._queue = [];
    this._inFlight = 0;
    this._flushing = false;
    /** @type {Promise<void> | undefined} */
    this._closing = undefined;
    this._warned = false;
    /** @type {Set<string>} */
    this._mistakes = new Set();
  }

  /**
   * Whether a request may pass. Never rejects: without a node the fail policy decides.
   *
   * @param {Check} check
   * @returns {Promise<Decision>}
   */
  check(check) {
    return new Promise((resolve) => this.ask(check, resolve));
  }

  /**
   * The same with a callback, which costs less; it may be called at once.
   *
   * @param {Check} check
   * @param {(decision: Decision) => void} answer
   */
  ask(check, answer) {
    const account = this._decidesHere && this._closing === undefined ? accountOf(check) : undefined;
    const nowMs = this._now();
    const decision = account && this._book.take(account.key, account.cost, nowMs);
    if (decision !== undefined) {
      tell(answer, decision);
      if (this._book.low.length > 0) this._renewals.renewLow();
      return;
    }
    const pending = new Pending(encoded(check), account, nowMs, answer);
    if (this._options.leases && account !== undefined) {
      if (this._renewals.join(account.key, account.cost, (denial) => this._renewed(pending, account, denial))) {
        this._expect(pending);
        return;
      }
    }
    this._askNode(pending);
  }

  /**
   * Returns leases, then closes kept connections; checks that wait are answered by the fail policy. Resolves when that is done,
   * within a few times `timeoutMs`.
   *
   * @returns {Promise<void>}
   */
  close() {
    this._closing ??= this._renewals.close().then(() => this._nodes.close());
    for (const pending of this._queue.splice(0)) this._answer(pending, withoutNode(this._options.failPolicy));
    return this._closing;
  }

  /**
   * What the fail policy says where the application asked what no node can decide on; said once as a warning of the process.
   *
   * @param {Decision} decision
   * @returns {Decision}
   */
  mistaken(decision) {
    const message = String(decision.problem?.detail);
    if (!this._mistakes.has(message) && this._mistakes.size < MOST_MISTAKES) {
      this._mistakes.add(message);
      process.emitWarning(`requests are not limited as meant: ${message}`, { type: 'TidegateWarning', code: 'TIDEGATE_MISTAKE' });
    }
    this._failed(new UnavailableError(message));
    return withoutNode(this._options.failPolicy);
  }

  /**
   * The lease that a check waited for is there, or is not.
   *
   * @param {Pending} pending @param {{ key: string, cost: number }} account @param {Decision | undefined} denial
   */
  _renewed(pending, { key, cost }, denial) {
    if (pending.answered) return;
    const decision = denial ?? (this._closing === undefined ? this._book.take(key, cost, this._now()) : undefined);
    if (decision === undefined) this._askNode(pending);
    else this._answer(pending, decision);
    if (this._book.low.length > 0) this._renewals.renewLow();
  }

  /** @param {Pending} pending */
  _askNode(pending) {
    const closed = this._closing !== undefined;
    if (closed || !this._nodes.someAwake(performance.now())) {
      this._failed(new UnavailableError(closed ? 'closed' : 'every node rests after a failure'));
      this._answer(pending, withoutNode(this._options.failPolicy));
      return;
    }
    this._expect(pending);
    this._queue.push(pending);
    if (!this._flushing) {
      this._flushing = true;
      setImmediate(() => this._flush()); // whoever asks in this turn goes along
    }
  }

  /** From here on it is answered in time, whatever happens. @param {Pending} pending */
  _expect(pending) {
    pending.timer ??= setTimeout(() => this._late(pending), this._options.timeoutMs);
  }

  _flush() {
    this._flushing = false;
    while (this._queue.length > 0 && this._inFlight < BATCHES_IN_FLIGHT) {
      let bytes = 0;
      const beyond = this._queue.findIndex((pending, at) => {
        bytes += pending.bytes;
        return at > 0 && (at >= this._most.checks || bytes > this._most.bytes);
      });
      this._send(new Batch(this._queue.splice(0, beyond < 0 ? this._queue.length : beyond)));
    }
  }

  /** @param {Batch} batch */
  _send(batch) {
    this._inFlight += 1;
    if (this._book.hasRepeated) this._renewals.tell();
    for (const pending of batch.checks) pending.batch = batch;
    const body = `{"checks":[${batch.checks.map((pending) => pending.body).join(',')}]}`;
    batch.giveUp = this._nodes.post(CHECK_BATCH, body, (error, answered) => {
      this._inFlight -= 1;
      const isLarge = batch.checks.length > STRANGERS_BATCH || Buffer.byteLength(body) > STRANGERS_BODY_BYTES + 1024;
      if (answered?.status === 403 && isLarge && batch.checks.length > 1) {
        // Refused as a whole, before anything was counted. By the size of this one: another may have been refused first.
        this._most = { checks: Math.min(this._most.checks, STRANGERS_BATCH), bytes: STRANGERS_BODY_BYTES };
        for (const pending of batch.checks) pending.batch = undefined;
        this._queue.unshift(...batch.checks.filter((pending) => !pending.answered));
        this._flush();
        return;
      }
      const decisions = error === undefined ? decisionsOf(answered?.body, batch.checks.length) : undefined;
      if (decisions === undefined && batch.waiting > 0) {
        this._failed(error instanceof UnauthorizedError ? error : new UnavailableError(error?.message ?? 'the answer is no batch'));
      }
      batch.checks.forEach((pending, at) => {
        if (decisions === undefined) this._answer(pending, withoutNode(this._options.failPolicy));
        else this._decided(pending, decisions[at]);
      });
      this._flush();
    });
  }

  /** @param {Pending} pending @param {Decision} decision */
  _decided(pending, decision) {
    const { account, askedMs } = pending;
    if (decision.status === 429 && account !== undefined && this._options.rememberDenialsMs > 0) {
      const noted = this._book.note(account.key, 0, askedMs);
      if (noted !== undefined) this._book.denied(noted, decision, account.cost, askedMs);
    }
    this._answer(pending, decision);
  }

  /** @param {Pending} pending */
  _late(pending) {
    if (pending.answered) return;
    this._failed(new UnavailableError(`no answer within ${this._options.timeoutMs} ms`));
    this._answer(pending, withoutNode(this._options.failPolicy));
    const { batch } = pending;
    if (batch === undefined) {
      const at = this._queue.indexOf(pending);
      if (at >= 0) this._queue.splice(at, 1);
    } else if (batch.waiting === 0) batch.giveUp();
  }

  /** @param {Pending} pending @param {Decision} decision */
  _answer(pending, decision) {
    if (pending.answered) return;
    pending.answered = true;
    clearTimeout(pending.timer);
    if (pending.batch !== undefined) pending.batch.waiting -= 1;
    tell(pending.answer, decision);
  }

  /** @param {UnavailableError} error */
  _failed(error) {
    if (error instanceof UnauthorizedError && !this._warned) {
      // A mistake of the set-up, which the fail policy would hide.
      this._warned = true;
      process.emitWarning(error.message, { type: 'TidegateWarning', code: 'TIDEGATE_UNAUTHORIZED' });
    }
    aside(() => this._options.onError(error));
  }
}

/** @param {(decision: Decision) => void} answer @param {Decision} decision */
function tell(answer, decision) {
  aside(() => answer(decision));
}

/** Run what callers gave; what it throws is theirs, beside the work here. @param {() => void} theirs */
function aside(theirs) {
  try {
    theirs();
  } catch (error) {
    process.nextTick(() => { throw error; }); // others are still to be answered
  }
}

/** @param {any} answer @param {number} count @returns {Decision[] | undefined} */
function decisionsOf(answer, count) {
  const items = answer?.decisions;
  if (!Array.isArray(items) || items.length !== count) return undefined;
  const decisions = [];
  for (const item of items) {
    const decision = decisionOf(item);
    if (decision === undefined) return undefined;
    decisions.push(decision);
  }
  return decisions;
}

module.exports = { Limiter };
