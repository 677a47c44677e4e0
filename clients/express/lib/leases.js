'use strict';

/**
 * What is held here: allotments that nodes granted, and denials that still stand. Pure: time is an argument (ms of a clock that
 * only goes forward).
 *
 * A lease is spent only before its time is over and never beyond its units, so what this process lets through was counted
 * before it was let through. What is left goes back in time; what expires is lost, not reused.
 *
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {{ origin: string, lease: string, unused: number }} Ending a lease to return, to the node it came from
 */

const { later } = require('./decision.js');

// The part of a lease that is left when the next one is asked for.
const RENEW_BELOW = 0.3;
// The part of a lease's time in which it is no longer spent but returned.
const SETTLE_BEFORE = 0.15;
const SMOOTHING = 0.5;
const MOST_UNITS = 1e12;
const LEAST_MEASURED_MS = 50;

/** What a node said when it was asked at `askedMs`, to be said again later. */
class HeldAnswer {
  /** @param {Decision} decision @param {number} askedMs */
  constructor(decision, askedMs) {
    this.decision = decision;
    this._askedMs = askedMs;
    this._passedS = 0;
    this._later = decision;
  }

  /** The decision as it reads now: what has passed is taken off its times, by tenths of a second. @param {number} nowMs */
  at(nowMs) {
    const passedS = Math.floor((nowMs - this._askedMs) / 100) / 10;
    if (passedS !== this._passedS) {
      this._passedS = passedS;
      this._later = Object.freeze(later(this.decision, passedS));
    }
    return this._later;
  }
}

/** Units from one node until a moment; `answer` is what each of them is answered with. */
class Lease {
  /**
   * @param {string} origin
   * @param {string | null} token
   * @param {number} granted
   * @param {number} askedMs its time counts from then
   * @param {number} lastsMs
   * @param {Decision} decision
   */
  constructor(origin, token, granted, askedMs, lastsMs, decision) {
    this.origin = origin;
    this.token = token;
    this.left = granted;
    this.low = Math.floor(granted * RENEW_BELOW);
    this.until = askedMs + lastsMs;
    this.spendUntil = this.until - lastsMs * SETTLE_BEFORE;
    this.answer = new HeldAnswer(decision, askedMs);
  }

  /** @returns {Ending[]} what is to be returned of it; afterwards it holds nothing */
  end() {
    const unused = this.left;
    this.left = 0;
    return unused > 0 && this.token !== null ? [{ origin: this.origin, lease: this.token, unused }] : [];
  }
}

/** One check's lease, the demand for it, and its denial if there is one. */
class Account {
  /** @param {number} nowMs */
  constructor(nowMs) {
    /** @type {Lease | undefined} */
    this.lease = undefined;
    this.asking = false;
    this.wanted = 0;
    this.since = nowMs;
    this.perS = 0;
    /** @type {HeldAnswer | undefined} */
    this.denial = undefined;
    this.deniedCost = 0;
    this.deniedUntil = -Infinity;
    this.notBefore = -Infinity;
  }

  /** Units wanted a second, smoothed. @param {number} nowMs */
  measure(nowMs) {
    const passedMs = nowMs - this.since;
    if (passedMs >= LEAST_MEASURED_MS) {
      const seen = (this.wanted / passedMs) * 1_000;
      this.perS = this.perS === 0 ? seen : this.perS + SMOOTHING * (seen - this.perS);
      this.wanted = 0;
      this.since = nowMs;
    }
    return this.perS;
  }
}

/** The accounts of one process, by the text of their check. */
class LeaseBook {
  /** @param {{ leaseMs: number, leaseAfterPerS: number, maxLeaseUnits: number, rememberDenialsMs: number, maxAccounts: number }} options */
  constructor({ leaseMs, leaseAfterPerS, maxLeaseUnits, rememberDenialsMs, maxAccounts }) {
    this._leaseMs = leaseMs;
    this._afterPerS = leaseAfterPerS;
    this._maxUnits = maxLeaseUnits;
    this._rememberMs = rememberDenialsMs;
    this._most = maxAccounts;
    /** @type {Map<string, Account>} */
    this.accounts = new Map();
    /** Whose lease runs low: to be renewed by whoever sees it here (their accounts are marked as asking). @type {string[]} */
    this.low = [];
    /** @type {Map<string, { requests: number, cost: number, policy: string | undefined, cause: string | undefined }>} */
    this._repeated = new Map();
    /** Of accounts that made room: returned with the next that are due. @type {Lease[]} */
    this._pushedOut = [];
  }

  /**
   * Decide here if that is possible: spend a lease, or repeat a denial.
   *
   * @param {string} key @param {number} cost a whole number above 0 @param {number} nowMs
   * @returns {Decision | undefined} `undefined`: ask a node
   */
  take(key, cost, nowMs) {
    const account = this.accounts.get(key);
    if (account === undefined) return undefined;
    account.wanted += cost;
    const { lease } = account;
    if (lease !== undefined && lease.left >= cost && nowMs < lease.spendUntil) {
      lease.left -= cost;
      if (lease.left < lease.low && !account.asking) {
        account.asking = true;
        this.low.push(key);
      }
      return lease.answer.at(nowMs);
    }
    if (nowMs >= account.deniedUntil || cost < account.deniedCost || account.denial === undefined) return undefined;
    const denial = account.denial.at(nowMs);
    this._repeat(key, cost, denial);
    return denial;
  }

  /** @param {string} key @param {number} cost @param {Decision} denial */
  _repeat(key, cost, denial) {
    let repeated = this._repeated.get(key);
    if (repeated === undefined) {
      if (this._repeated.size >= this._most) return;
      const { policy, cause } = denial;
      repeated = { requests: 0, cost: 0, policy, cause };
      this._repeated.set(key, repeated);
    }
    repeated.requests += 1;
    repeated.cost = Math.min(MOST_UNITS, repeated.cost + cost);
  }

  /** Whether something was denied here that no node knows of. */
  get hasRepeated() {
    return this._repeated.size > 0;
  }

  /** What was denied here since the last time, by check, as a node reads it (`POST /v1/denials`). @returns {object[]} */
  repeated() {
    const told = [...this._repeated].map(([key, repeated]) => ({ ...JSON.parse(key), ...repeated }));
    this._repeated.clear();
    return told;
  }

  /** Whether a check that could not be decided here is asked for often enough to hold a lease. @param {Account} account @param {number} nowMs */
  wantsLease(account, nowMs) {
    return !account.asking && nowMs >= account.notBefore && account.measure(nowMs) >= this._afterPerS;
  }

  /**
   * The check's account, made when it is seen for the first time; `cost` is wanted of it.
   *
   * @param {string} key @param {number} cost @param {number} nowMs
   * @returns {Account | undefined} `undefined`: there is no room, every account waits for a lease
   */
  note(key, cost, nowMs) {
    let account = this.accounts.get(key);
    if (account === undefined) {
      if (this.accounts.size >= this._most) this._forgetIdle(nowMs);
      if (this.accounts.size >= this._most) return undefined;
      account = new Account(nowMs);
      account.wanted = cost;
      this.accounts.set(key, account);
    }
    return account;
  }

  /**
   * As much as will be wanted in a lease's time; half of what there is left when that is known to be less.
   *
   * @param {Account} account @param {number} atLeast @param {number} nowMs
   */
  unitsToAsk(account, atLeast, nowMs) {
    account.asking = true;
    let units = Math.max(atLeast, Math.ceil((account.measure(nowMs) * this._leaseMs) / 1_000));
    const remaining = account.lease?.answer.decision.remaining;
    if (remaining !== undefined) units = Math.min(units, Math.max(atLeast, Math.floor(remaining / 2)));
    return Math.max(1, Math.min(units, this._maxUnits));
  }

  /** Put a lease in force; what is left of the one before is to be returned. @param {Account} account @param {Lease} lease @returns {Ending[]} */
  granted(account, lease) {
    const before = account.lease;
    account.lease = lease;
    account.deniedUntil = -Infinity;
    return before === undefined ? [] : before.end();
  }

  /**
   * Remember a denial from when it was asked for, for as long as it is certain.
   *
   * @param {Account} account @param {Decision} decision @param {number} cost @param {number} askedMs
   */
  denied(account, decision, cost, askedMs) {
    if (this._rememberMs === 0 || decision.status !== 429) return;
    const waitMs = decision.retryAfterS === undefined ? this._rememberMs : decision.retryAfterS * 1_000;
    account.denial = new HeldAnswer(Object.freeze({ ...decision, source: 'memory' }), askedMs);
    account.deniedCost = cost;
    account.deniedUntil = askedMs + Math.min(waitMs, this._rememberMs);
  }

  /** Leases whose time ends: they are no longer spent, and what is left is to be returned. @param {number} nowMs @returns {Ending[]} */
  due(nowMs) {
    const ended = this._pushedOut;
    this._pushedOut = [];
    for (const account of this.accounts.values()) {
      const { lease } = account;
      if (lease !== undefined && nowMs >= lease.spendUntil) {
        account.lease = undefined;
        ended.push(lease);
      }
    }
    return returnable(ended, nowMs);
  }

  /** Every lease that can still be returned; nothing is held afterwards. @param {number} nowMs @returns {Ending[]} */
  close(nowMs) {
    const held = this._pushedOut;
    for (const { lease } of this.accounts.values()) if (lease !== undefined) held.push(lease);
    this._pushedOut = [];
    this.accounts.clear();
    return returnable(held, nowMs);
  }

  /** Make room: accounts that hold nothing go first, then all that is not being asked for. @param {number} nowMs */
  _forgetIdle(nowMs) {
    const waiting = [...this.accounts].filter(([, account]) => !account.asking);
    const idle = waiting.filter(([, account]) => account.lease === undefined && nowMs >= account.deniedUntil);
    for (const [key, { lease }] of idle.length > 0 ? idle : waiting) {
      this.accounts.delete(key);
      if (lease !== undefined) this._pushedOut.push(lease);
    }
  }
}

/** @param {Lease[]} leases @param {number} nowMs */
function returnable(leases, nowMs) {
  return leases.filter((lease) => nowMs < lease.until).flatMap((lease) => lease.end());
}

module.exports = { Account, Lease, LeaseBook };
