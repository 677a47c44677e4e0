'use strict';

/** @typedef {import('../index.js').LimiterOptions} LimiterOptions */

/**
 * The options of a limiter with what was left out; what cannot work is refused by name.
 *
 * @param {LimiterOptions} options
 */
function optionsOf({
  url,
  token,
  timeoutMs = 250,
  failPolicy = 'open',
  maxBatch = 500,
  leases = false,
  leaseMs = 1_000,
  leaseAfterPerS = 5,
  maxLeaseUnits = 10_000_000,
  rememberDenialsMs = 1_000,
  maxAccounts = 10_000,
  tls,
  onError = () => {},
}) {
  const urls = Array.isArray(url) ? url : [url];
  if (urls.length === 0 || urls.some((one) => typeof one !== 'string')) throw new TypeError('url: name at least one node');
  if (!(timeoutMs > 0)) throw new TypeError('timeoutMs: must be above 0');
  if (failPolicy !== 'open' && failPolicy !== 'closed') throw new TypeError("failPolicy: 'open' or 'closed'");
  if (!(isCount(maxBatch) && maxBatch <= 1000)) throw new TypeError('maxBatch: from 1 to 1000');
  if (typeof leases !== 'boolean') throw new TypeError('leases: true or false');
  if (!(leaseMs > 0 && leaseMs <= 10_000)) throw new TypeError('leaseMs: above 0, at most 10000');
  if (!(leaseAfterPerS >= 0)) throw new TypeError('leaseAfterPerS: must not be negative');
  if (!(isCount(maxLeaseUnits) && maxLeaseUnits <= 10_000_000)) throw new TypeError('maxLeaseUnits: from 1 to 10000000');
  if (!(rememberDenialsMs >= 0)) throw new TypeError('rememberDenialsMs: must not be negative');
  if (!isCount(maxAccounts)) throw new TypeError('maxAccounts: a whole number above 0');
  return {
    urls, token, timeoutMs, failPolicy, maxBatch, leases, leaseMs, leaseAfterPerS, maxLeaseUnits, rememberDenialsMs, maxAccounts,
    tls, onError,
  };
}

/** @param {number} value */
function isCount(value) {
  return Number.isSafeInteger(value) && value > 0;
}

module.exports = { optionsOf };
