'use strict';

const { parse } = require('node:url');

const MAX_KEY_LENGTH = 256;
const MAX_PATH_LENGTH = 8192;
const ODD = /[\t\n\f\r #\u00a0\ufeff]/;

/** Who asks cannot be told: refused, whatever the limits. */
class RefusedError extends Error {
  /** @param {string} error @param {string} message @param {401 | 403} status */
  constructor(error, message, status = 401) {
    super(message);
    this.error = error;
    this.status = status;
  }
}

/**
 * The API key of a request: `X-API-Key`, or `Authorization: Bearer`.
 * Node joins lines of one name by commas; no key has one.
 *
 * @param {import('node:http').IncomingMessage} request
 * @returns {string | undefined}
 */
function keyOf(request) {
  const keys = new Set();
  for (const part of String(request.headers['x-api-key'] ?? '').split(',')) {
    if (part.trim()) keys.add(part.trim());
  }
  for (const part of String(request.headers.authorization ?? '').split(',')) {
    const bearer = /^bearer\s+(\S.*)$/i.exec(part.trim());
    if (bearer) keys.add(bearer[1]);
  }
  if (keys.size > 1) throw new RefusedError('ambiguous_api_key', 'more than one API key was sent');
  const [key] = keys;
  if (key !== undefined && key.length > MAX_KEY_LENGTH) {
    throw new RefusedError('malformed_api_key', 'the API key is too long');
  }
  return key;
}

/**
 * The end client's address: Express's `req.ip`, which follows `trust proxy`; else the socket's.
 *
 * @param {import('node:http').IncomingMessage & { ip?: string }} request
 * @returns {string | undefined}
 */
function addressOf(request) {
  const address = request.ip ?? request.socket.remoteAddress;
  if (!address) return undefined;
  const withoutZone = address.split('%', 1)[0];
  return withoutZone.startsWith('::ffff:') && withoutZone.includes('.') ? withoutZone.slice(7) : withoutZone;
}

/**
 * The path by which Express routes, as the end client sent it, without the query, wherever the middleware is mounted.
 *
 * Express (parseurl) takes plain targets as they are, and all others (`http://host/path`, with a fragment, with odd spaces) as
 * `url.parse` reads them, which among other things turns backslashes into slashes: so must we, or an endpoint is served as one
 * and counted as another.
 *
 * @param {import('node:http').IncomingMessage & { originalUrl?: string }} request
 * @returns {string}
 */
function pathOf(request) {
  const target = request.originalUrl || request.url || '/';
  let path;
  if (target.startsWith('/') && !ODD.test(target)) {
    const end = target.indexOf('?');
    path = end < 0 ? target : target.slice(0, end);
  } else {
    try {
      path = parse(target).pathname;
    } catch {
      throw new RefusedError('malformed_request', 'the request target cannot be read', 403);
    }
  }
  return (path || '/').slice(0, MAX_PATH_LENGTH);
}

module.exports = { RefusedError, keyOf, addressOf, pathOf };
