'use strict';

const { headersOf, refusal } = require('./decision.js');
const { RefusedError, addressOf, keyOf, pathOf } = require('./identity.js');
const { Limiter } = require('./limiter.js');

/**
 * @typedef {import('../index.js').Check} Check
 * @typedef {import('../index.js').Decision} Decision
 * @typedef {import('../index.js').RateLimitOptions} RateLimitOptions
 * @typedef {import('../index.js').Request} Request
 * @typedef {import('../index.js').Response} Response
 */

const ATTRIBUTE = 'attribute:';

/**
 * Middleware for Express, Connect and plain `http` servers: asks a node before each request.
 *
 * @param {RateLimitOptions} options
 * @returns {import('../index.js').RateLimitMiddleware}
 */
function rateLimit(options) {
  const { limiter = new Limiter(/** @type {import("../index.js").LimiterOptions} */ (options)), skip, handler = answerDenied, headers = 'both' } = options;
  const identify = options.identify ?? identifier(options);
  const { endpoint, cost } = options.identify === undefined ? options : {};
  const fixed = new Set([...(typeof endpoint === 'string' ? ['endpoint'] : []), ...(typeof cost === 'number' ? ['cost'] : [])]);
  if (!['both', 'standard', 'legacy'].includes(headers)) throw new TypeError("headers: 'both', 'standard' or 'legacy'");

  /** @param {Request} request @param {Response} response @param {(error?: unknown) => void} next */
  const middleware = async (request, response, next) => {
    try {
      if (skip !== undefined && (await skip(request, response))) {
        next();
        return;
      }
      limiter.ask(await identify(request, response), finish);
    } catch (error) {
      if (error instanceof RefusedError) finish(refusal(error.status, error.error, error.message));
      else next(error);
    }

    /** @param {Decision} told */
    function finish(told) {
      const decision = isMistake(told, fixed) ? limiter.mistaken(told) : told;
      if (response.headersSent || response.destroyed) return; // whoever asked has gone, or was answered by a timeout
      for (const [name, value] of headersOf(decision, headers, Date.now())) response.setHeader(name, value);
      request.tidegate = decision;
      if (decision.allowed) next();
      else deny(decision);
    }

    /** @param {Decision} decision */
    async function deny(decision) {
      try {
        await handler(request, response, next, decision);
      } catch (error) {
        next(error);
      }
    }
  };
  return Object.assign(middleware, { limiter, close: () => limiter.close() });
}

/**
 * The check of a request, as `limitBy`, `keyGenerator`, `endpoint`, `cost` and `attributes` say.
 *
 * @param {RateLimitOptions} options
 * @returns {(request: Request, response: Response) => Promise<Check>}
 */
function identifier({ limitBy = 'key', keyGenerator, endpoint, cost, attributes }) {
  const known = ['key', 'ip', 'client'].includes(limitBy) || (limitBy.startsWith(ATTRIBUTE) && limitBy !== ATTRIBUTE);
  if (!known) throw new TypeError("limitBy: 'key', 'ip', 'client' or 'attribute:<name>'");
  if (keyGenerator === undefined && limitBy !== 'key' && limitBy !== 'ip') {
    throw new TypeError(`limitBy ${limitBy} needs a keyGenerator`);
  }

  return async (request, response) => {
    const value = keyGenerator === undefined ? undefined : asText(await keyGenerator(request, response));
    /** @type {Check} */
    const check = { ip: addressOf(request) };
    if (endpoint === undefined) {
      check.method = request.method;
      check.path = pathOf(request);
    } else check.endpoint = typeof endpoint === 'function' ? await endpoint(request, response) : endpoint;
    if (cost !== undefined) check.cost = typeof cost === 'function' ? await cost(request, response) : cost;
    if (attributes !== undefined) check.attributes = await attributes(request, response);
    if (limitBy === 'ip') check.ip = value ?? check.ip;
    else if (limitBy === 'client') check.client = value;
    else if (limitBy === 'key') check.api_key = keyGenerator === undefined ? keyOf(request) : value;
    else {
      check.api_key = keyOf(request);
      if (value !== undefined) check.attributes = { ...check.attributes, [limitBy.slice(ATTRIBUTE.length)]: value };
    }
    return check;
  };
}

/** What `keyGenerator` returned: users have numbers where a node takes texts. @param {unknown} value */
function asText(value) {
  const text = typeof value === 'number' || typeof value === 'bigint' ? String(value) : value ?? undefined;
  return /** @type {string | undefined} */ (text);
}

/**
 * Whether a member of the check is wrong that the application has fixed: an endpoint that is none, say.
 *
 * @param {Decision} decision @param {Set<string>} fixed
 */
function isMistake({ problem }, fixed) {
  const errors = /** @type {Array<{ field?: string }> | undefined} */ (problem?.errors);
  return Array.isArray(errors) && fixed.has(errors[0]?.field ?? '');
}

/**
 * The default answer to a denial: the problem (RFC 9457).
 *
 * @param {Request} request @param {Response} response @param {unknown} _next @param {Decision} decision
 */
function answerDenied(request, response, _next, decision) {
  const body = JSON.stringify(decision.problem);
  response.statusCode = decision.status;
  response.setHeader('Content-Type', 'application/problem+json');
  response.setHeader('Content-Length', Buffer.byteLength(body));
  response.setHeader('Cache-Control', 'no-store');
  if (decision.status === 401) response.setHeader('WWW-Authenticate', 'ApiKey');
  response.end(request.method === 'HEAD' ? undefined : body);
}

module.exports = { rateLimit };
