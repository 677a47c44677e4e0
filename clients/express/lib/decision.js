'use strict';

/**
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {import('../index.js').HeaderStyle} HeaderStyle
 */

const DENIED = 429;
const POLICY = /^[a-z0-9._-]{1,64}$/;

/**
 * What a node said of one check.
 *
 * @param {any} item an item of a batch's answer
 * @returns {Decision | undefined} `undefined` when it is nothing that a node says
 */
function decisionOf(item) {
  if (item === null || typeof item !== 'object') return undefined;
  if (typeof item.error === 'object' && item.error !== null) {
    // The node did not understand this check: nothing was decided, so nothing is let through.
    const { detail, errors } = item.error;
    const status = errorStatus(item.error) ?? 403;
    return { ...refusal(status, 'malformed_request', String(detail ?? 'not understood')), problem: { ...item.error, status, errors } };
  }
  if (typeof item.allowed !== 'boolean' || !isShowable(item)) return undefined;
  if (item.allowed) return { ...numbers(item), allowed: true, status: 200, source: 'node', problem: undefined };
  const status = errorStatus(item) ?? DENIED;
  return { ...numbers(item), allowed: false, status, source: 'node', problem: endUserProblem(item, status) };
}

/** The status that a problem names, where it is one of an error. @param {any} problem @returns {number | undefined} */
function errorStatus({ status }) {
  return Number.isInteger(status) && status >= 400 && status <= 599 ? status : undefined;
}

/** Whether what becomes headers is what a node writes: anything else would throw, or split the answer. @param {any} item */
function isShowable(item) {
  const { policy, limit, window_s, remaining, reset_after_s, retry_after_s } = item;
  return (
    (policy == null || (typeof policy === 'string' && POLICY.test(policy))) &&
    [limit, window_s, remaining, reset_after_s, retry_after_s].every((value) => value == null || (Number.isFinite(value) && value >= 0))
  );
}

/** @param {any} item */
function numbers(item) {
  return {
    client: item.client ?? undefined,
    policy: item.policy ?? undefined,
    limit: item.limit ?? undefined,
    windowS: item.window_s ?? undefined,
    remaining: item.remaining ?? undefined,
    resetAfterS: item.reset_after_s ?? undefined,
    retryAfterS: item.retry_after_s ?? undefined,
    degraded: item.degraded === true,
    requestId: item.request_id ?? item.instance ?? undefined,
    error: item.error ?? undefined,
    cause: item.cause ?? undefined,
  };
}

/** What an end user may read of a denial: no client, plan or region. @param {any} item @param {number} status */
function endUserProblem(item, status) {
  const { type, title, detail, instance, error, cause, message, retry_after } = item;
  const shown = { type, title, status, detail, instance, 'violated-policies': item['violated-policies'], error, cause, message };
  return retry_after === undefined ? shown : { ...shown, retry_after };
}

/** @param {number} status @param {string} error @param {string} message @returns {Decision} */
function refusal(status, error, message) {
  const problem = { type: 'about:blank', title: TITLES[status], status, detail: message, error, message };
  return { ...numbers({ error }), allowed: false, status, source: 'client', problem };
}

/** @type {Record<number, string>} */
const TITLES = { 401: 'Unauthorized', 403: 'Forbidden', 503: 'Service Unavailable' };

/** @param {'open' | 'closed'} policy @returns {Decision} */
function withoutNode(policy) {
  if (policy === 'open') {
    return { ...numbers({}), allowed: true, status: 200, degraded: true, source: 'policy', problem: undefined };
  }
  return { ...refusal(503, 'rate_limiter_unavailable', 'no rate limiter answered in time'), degraded: true, source: 'policy' };
}

/**
 * The rate limit headers of a decision, of the limit that it shows.
 *
 * @param {Decision} decision
 * @param {HeaderStyle} style
 * @param {number} nowMs
 * @returns {Array<[string, string]>}
 */
function headersOf(decision, style, nowMs) {
  /** @type {Array<[string, string]>} */
  const lines = [];
  const { policy, limit, remaining, windowS, retryAfterS } = decision;
  if (policy !== undefined && limit !== undefined && remaining !== undefined) {
    const untilS = decision.allowed ? decision.resetAfterS : retryAfterS;
    if (style !== 'standard') {
      const resetS = untilS ?? decision.resetAfterS ?? 0;
      lines.push(['X-RateLimit-Limit', `${limit}`], ['X-RateLimit-Remaining', `${remaining}`]);
      lines.push(['X-RateLimit-Reset', `${Math.ceil(nowMs / 1000 + resetS)}`]);
    }
    if (style !== 'legacy') {
      const window = Number.isInteger(windowS) ? `;w=${windowS}` : '';
      const until = untilS === undefined ? '' : `;t=${Math.ceil(untilS)}`;
      lines.push(['RateLimit-Policy', `"${policy}";q=${limit}${window}`]);
      lines.push(['RateLimit', `"${policy}";r=${remaining}${until}`]);
    }
  }
  if (!decision.allowed && retryAfterS !== undefined) lines.push(['Retry-After', `${Math.ceil(retryAfterS)}`]);
  return lines;
}

/**
 * A decision as it reads `passedS` seconds after it was made.
 *
 * @param {Decision} decision @param {number} passedS @returns {Decision}
 */
function later(decision, passedS) {
  const [resetAfterS, retryAfterS] = [decision.resetAfterS, decision.retryAfterS].map((timeS) =>
    timeS === undefined ? undefined : Math.max(0, timeS - passedS),
  );
  const { problem } = decision;
  if (typeof problem?.retry_after !== 'number' || retryAfterS === undefined) return { ...decision, resetAfterS, retryAfterS };
  return { ...decision, resetAfterS, retryAfterS, problem: { ...problem, retry_after: Math.ceil(retryAfterS) } };
}

module.exports = { decisionOf, headersOf, later, refusal, withoutNode };
