'use strict';

const { decisionOf } = require('./decision.js');
const { UnauthorizedError, UnavailableError } = require('./errors.js');
const { Lease, LeaseBook } = require('./leases.js');
const { encoded } = require('./check.js');

/**
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {import('./leases.js').Ending} Ending
 * @typedef {import('./nodes.js').Answered} Answered
 * @typedef {ReturnType<import('./options.js').optionsOf>} Options
 */

// How long nobody asks again for a lease that a node cannot give, and when there was no answer or the node's store was away.
const NO_LEASE_FOR_MS = 5_000;
const LEASE_AGAIN_AFTER_MS = 200;
const MOST_RETURNS = 100;
// So often in a lease's time it is looked whether any ends.
const LOOKS = 20;

/** Asks for leases before they are spent, and returns what is left of them. */
class Renewals {
  /**
   * @param {LeaseBook} book
   * @param {import('./nodes.js').Nodes} nodes
   * @param {Options} options
   * @param {() => number} now a clock that only goes forward, in ms
   * @param {(error: UnavailableError) => void} failed
   */
  constructor(book, nodes, options, now, failed) {
    this._book = book;
    this._nodes = nodes;
    this._options = options;
    this._now = now;
    this._failed = failed;
    /** Who waits for the lease that is on its way, by account. @type {Map<string, Array<(denial: Decision | undefined) => void>>} */
    this._waiting = new Map();
    /** Renewals and returns on their way. @type {Set<Promise<void>>} */
    this._underWay = new Set();
    this._tells = true;
    /** @type {NodeJS.Timeout | undefined} */
    this._keeper = undefined;
  }

  /**
   * Wait for a lease if one is on its way or worth asking for; `told` hears of the denial if it is denied.
   *
   * @param {string} key @param {number} cost @param {(denial: Decision | undefined) => void} told
   * @returns {boolean} `false`: ask for this check alone
   */
  join(key, cost, told) {
    const nowMs = this._now();
    const account = this._book.note(key, cost, nowMs);
    if (account !== undefined && !this._waiting.has(key) && this._book.wantsLease(account, nowMs)) this._begin(key, account, cost);
    const waiting = this._waiting.get(key);
    waiting?.push(told);
    return waiting !== undefined;
  }

  /** Ask for the next lease of every account that runs low. */
  renewLow() {
    for (const key of this._book.low.splice(0)) {
      const account = this._book.accounts.get(key);
      if (account !== undefined && !this._waiting.has(key)) this._begin(key, account, 1);
    }
  }

  /** Tell a node what was denied here, so that it is in usage and in the denial log. */
  tell() {
    this._follow(this._tell(this._book.repeated()));
  }

  /** What does not arrive is not repeated: better too little than twice. @param {object[]} denials */
  async _tell(denials) {
    while (this._tells && denials.length > 0) {
      const { error, answered } = await this._post('/v1/denials', { denials: denials.splice(0, MOST_RETURNS) });
      // A node that wants a token for it, or is of a version that does not ask.
      this._tells = !(error instanceof UnauthorizedError) && ![403, 404].includes(answered?.status ?? 0);
    }
  }

  /** Return what is held, and what arrives meanwhile. */
  async close() {
    clearInterval(this._keeper);
    while (this._underWay.size > 0) await Promise.all(this._underWay);
    await this._return(this._book.close(this._now()));
    await this._tell(this._book.repeated());
  }

  /** @param {string} key @param {import('./leases.js').Account} account @param {number} cost */
  _begin(key, account, cost) {
    this._waiting.set(key, []);
    // Nobody stays alive for leases: they end by themselves.
    this._keeper ??= setInterval(() => this._follow(this._return(this._book.due(this._now()))), this._options.leaseMs / LOOKS).unref();
    this._follow(this._renew(key, account, cost));
  }

  /** @param {string} key @param {import('./leases.js').Account} account @param {number} cost */
  async _renew(key, account, cost) {
    const askedMs = this._now();
    const units = this._book.unitsToAsk(account, cost, askedMs);
    const { error, answered } = await this._post('/v1/leases', { ...JSON.parse(key), units, ttl_s: this._options.leaseMs / 1_000 });
    const denial = answered === undefined ? this._unanswered(account, error) : this._leased(account, answered, askedMs);
    const waiting = this._waiting.get(key) ?? [];
    // Together: whoever finds the new lease low may begin the next renewal.
    this._waiting.delete(key);
    account.asking = false;
    for (const told of waiting) told(denial);
  }

  /** @param {import('./leases.js').Account} account @param {Error | undefined} error */
  _unanswered(account, error) {
    const refused = error instanceof UnauthorizedError;
    account.notBefore = this._now() + (refused ? NO_LEASE_FOR_MS : LEASE_AGAIN_AFTER_MS);
    this._failed(refused ? error : new UnavailableError(error?.message));
    return undefined;
  }

  /**
   * Put in force what was granted.
   *
   * @param {import('./leases.js').Account} account @param {Answered} answered @param {number} askedMs
   * @returns {Decision | undefined} what the node said if it denied even one unit
   */
  _leased(account, { origin, status, body }, askedMs) {
    const decision = [200, 401, 403, 429].includes(status) ? decisionOf(body) : undefined;
    if (decision === undefined) {
      // Not understood, or without its store: checks are answered all the same.
      account.notBefore = this._now() + LEASE_AGAIN_AFTER_MS;
      return undefined;
    }
    if (!decision.allowed) {
      this._book.denied(account, decision, 1, askedMs);
      return decision;
    }
    const { granted, lease, expires_in_s: lastsS } = body;
    if (!isLease(body) || granted === 0) {
      account.notBefore = askedMs + NO_LEASE_FOR_MS;
      return undefined;
    }
    const lastsMs = Math.min(lastsS * 1_000, this._options.leaseMs);
    const held = Object.freeze({ ...decision, source: /** @type {const} */ ('lease') });
    this._follow(this._return(this._book.granted(account, new Lease(origin, lease, granted, askedMs, lastsMs, held))));
    return undefined;
  }

  /** Give back what was not spent. A return that fails is not repeated: the units are lost, never used twice. @param {Ending[]} endings */
  async _return(endings) {
    for (const origin of new Set(endings.map((ending) => ending.origin))) {
      const returns = endings.filter((ending) => ending.origin === origin).map(({ lease, unused }) => ({ lease, unused }));
      while (returns.length > 0) await this._post('/v1/leases/return', { returns: returns.splice(0, MOST_RETURNS) }, origin);
    }
  }

  /** @param {Promise<void>} work */
  _follow(work) {
    this._underWay.add(work);
    work.finally(() => this._underWay.delete(work));
  }

  /**
   * Never rejects, and ends in time.
   *
   * @param {string} path @param {object} members @param {string} [origin]
   * @returns {Promise<{ error?: Error, answered?: Answered }>}
   */
  _post(path, members, origin) {
    return new Promise((resolve) => {
      const late = setTimeout(() => {
        resolve({ error: new Error(`no answer within ${this._options.timeoutMs} ms`) });
        giveUp();
      }, this._options.timeoutMs);
      const giveUp = this._nodes.post(path, encoded(members), (error, answered) => {
        clearTimeout(late);
        resolve(error === undefined ? { answered } : { error });
      }, origin);
    });
  }
}

/** @param {any} body */
function isLease({ granted, lease, expires_in_s: lastsS }) {
  const counted = Number.isSafeInteger(granted) && granted >= 0 && Number.isFinite(lastsS) && lastsS >= 0;
  return counted && (lease === null || typeof lease === 'string');
}

module.exports = { Renewals };
