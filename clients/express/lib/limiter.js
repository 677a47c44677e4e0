'use strict';

const { decisionOf, withoutNode } = require('./decision.js');
const { Nodes } = require('./nodes.js');

/**
 * @typedef {import('../index.js').Check} Check
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {import('../index.js').LimiterOptions} LimiterOptions
 */

const BATCHES_IN_FLIGHT = 2;
// A connection must be made in this part of a check's time, so that there is time for the next node.
const CONNECT_SHARE = 1 / 2;
const MOST_CONNECT_MS = 1_000;
// A node takes 1 MiB; beyond it the whole batch would be refused, and one end client's long path would speak for others.
const MOST_BODY_BYTES = 512 * 1024;

/** No node answered in time; `onError` gets it. */
class UnavailableError extends Error {}

class Pending {
  /** @param {string} body @param {(decision: Decision) => void} answer */
  constructor(body, answer) {
    this.body = body;
    this.bytes = Buffer.byteLength(body) + 1;
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

/** Asks nodes, many checks at once; answers every check within `timeoutMs`. */
class Limiter {
  /** @param {LimiterOptions} options */
  constructor({ url, token, timeoutMs = 250, failPolicy = 'open', maxBatch = 500, tls, onError }) {
    const urls = Array.isArray(url) ? url : [url];
    if (urls.length === 0 || urls.some((one) => typeof one !== 'string')) throw new TypeError('url: name at least one node');
    if (!(timeoutMs > 0)) throw new TypeError('timeoutMs: must be above 0');
    if (failPolicy !== 'open' && failPolicy !== 'closed') throw new TypeError("failPolicy: 'open' or 'closed'");
    if (!(Number.isInteger(maxBatch) && maxBatch >= 1 && maxBatch <= 1000)) throw new TypeError('maxBatch: from 1 to 1000');
    // Given up connections close a moment later, so there may be more sockets than batches.
    this._nodes = new Nodes(urls, {
      token,
      tls,
      maxSockets: 4 * BATCHES_IN_FLIGHT,
      connectMs: Math.min(MOST_CONNECT_MS, timeoutMs * CONNECT_SHARE),
    });
    this._timeoutMs = timeoutMs;
    this._failPolicy = failPolicy;
    this._maxBatch = maxBatch;
    this._onError = onError ?? (() => {});
    /** @type {Pending[]} */
    this._queue = [];
    this._inFlight = 0;
    this._flushing = false;
    this._closed = false;
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
   * The same with a callback, which costs less.
   *
   * @param {Check} check
   * @param {(decision: Decision) => void} answer
   */
  ask(check, answer) {
    if (this._closed || !this._nodes.someAwake(Date.now())) {
      this._failed(new UnavailableError(this._closed ? 'closed' : 'every node rests after a failure'));
      answer(withoutNode(this._failPolicy));
      return;
    }
    const pending = new Pending(encoded(check), answer);
    pending.timer = setTimeout(() => this._late(pending), this._timeoutMs);
    this._queue.push(pending);
    if (!this._flushing) {
      this._flushing = true;
      setImmediate(() => this._flush()); // whoever asks in this turn goes along
    }
  }

  /** Closes kept connections; checks on their way are answered by the fail policy. */
  close() {
    this._closed = true;
    for (const pending of this._queue.splice(0)) this._answer(pending, withoutNode(this._failPolicy));
    this._nodes.close();
  }

  _flush() {
    this._flushing = false;
    while (this._queue.length > 0 && this._inFlight < BATCHES_IN_FLIGHT) {
      let bytes = 0;
      const beyond = this._queue.findIndex((pending, at) => {
        bytes += pending.bytes;
        return at > 0 && (at >= this._maxBatch || bytes > MOST_BODY_BYTES);
      });
      this._send(new Batch(this._queue.splice(0, beyond < 0 ? this._queue.length : beyond)));
    }
  }

  /** @param {Batch} batch */
  _send(batch) {
    this._inFlight += 1;
    for (const pending of batch.checks) pending.batch = batch;
    const body = `{"checks":[${batch.checks.map((pending) => pending.body).join(',')}]}`;
    batch.giveUp = this._nodes.post(body, (error, answer) => {
      this._inFlight -= 1;
      const decisions = error === undefined ? decisionsOf(answer, batch.checks.length) : undefined;
      if (decisions === undefined && batch.waiting > 0) this._failed(new UnavailableError(error?.message ?? 'the answer is no batch'));
      batch.checks.forEach((pending, at) => {
        this._answer(pending, decisions === undefined ? withoutNode(this._failPolicy) : decisions[at]);
      });
      this._flush();
    });
  }

  /** @param {Pending} pending */
  _late(pending) {
    if (pending.answered) return;
    this._failed(new UnavailableError(`no answer within ${this._timeoutMs} ms`));
    this._answer(pending, withoutNode(this._failPolicy));
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
    try {
      pending.answer(decision);
    } catch (error) {
      process.nextTick(() => { throw error; }); // the others of its batch are still to be answered
    }
  }

  /** @param {Error} error */
  _failed(error) {
    this._onError(error);
  }
}

/** A check as JSON that a node can read: what is no Unicode would spoil the whole batch. @param {Check} check */
function encoded(check) {
  const body = JSON.stringify(check);
  if (!body.includes('\\ud')) return body;
  return JSON.stringify(check, (_name, value) => (typeof value === 'string' ? value.replace(/\p{Surrogate}/gu, '\ufffd') : value));
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

module.exports = { Limiter, UnavailableError };
