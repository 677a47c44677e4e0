'use strict';

/** @typedef {import('../index.js').Check} Check */

// What end clients choose (a path, a key) shall not fill the memory: longer checks are asked for each time.
const LONGEST_KEY = 1_000;

/** A check as JSON that a node can read: what is no Unicode would spoil the whole batch. @param {object} check */
function encoded(check) {
  const body = JSON.stringify(check);
  if (!body.includes('\\ud')) return body;
  return JSON.stringify(check, (_name, value) => (typeof value === 'string' ? value.replace(/\p{Surrogate}/gu, '\ufffd') : value));
}

/**
 * What may be decided here: the check but for its cost, as text, and its cost. Equal checks share a lease.
 *
 * @param {Check} check
 * @returns {{ key: string, cost: number } | undefined} `undefined`: only a node can say
 */
function accountOf(check) {
  const { cost = 1, ...asked } = check;
  if (!Number.isSafeInteger(cost) || cost <= 0) return undefined;
  const key = JSON.stringify(asked);
  return key.length > LONGEST_KEY ? undefined : { key, cost };
}

module.exports = { accountOf, encoded };
