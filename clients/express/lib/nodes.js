'use strict';

const http = require('node:http');
const https = require('node:https');
const { UnauthorizedError } = require('./errors.js');

const MOST_ANSWER_BYTES = 4 * 1024 * 1024;
const FIRST_REST_MS = 100;
const LONGEST_REST_MS = 5_000;
// Shorter than a node's own 75 s: a connection is not used in the moment in which the node closes it.
const IDLE_MS = 30_000;
const CHECK_BATCH = '/v1/check/batch';
const MOST_OTHER_SOCKETS = 32;

/** @typedef {{ origin: string, status: number, body: any }} Answered an answer, and the node that gave it */

/** The request never left: it may go to another node. */
class NotSentError extends Error {}

/** One node: its kept connections, and how long it rests after it failed. */
class Node {
  /**
   * @param {string} url
   * @param {{ token?: string, tls?: import('node:https').AgentOptions, maxSockets: number, connectMs: number }} options
   */
  constructor(url, { token, tls, maxSockets, connectMs }) {
    this.url = url;
    const at = new URL(url);
    if (at.protocol !== 'http:' && at.protocol !== 'https:') throw new TypeError(`url: ${url} is not http(s)://host:port`);
    const secure = at.protocol === 'https:';
    const agentOf = (/** @type {number} */ most) => {
      const kept = { keepAlive: true, maxSockets: most, timeout: IDLE_MS, noDelay: true };
      return secure ? new https.Agent({ ...kept, ...tls }) : new http.Agent(kept);
    };
    this._request = secure ? https.request : http.request;
    // A node serves checks on a lane of their own; a connection that once asked for something else has left it.
    this._lane = agentOf(maxSockets);
    this._other = agentOf(MOST_OTHER_SOCKETS);
    this._options = { host: at.hostname.replace(/^\[|\]$/g, ''), port: at.port || (secure ? 443 : 80), method: 'POST' };
    this._path = at.pathname.replace(/\/$/, '');
    this._headers = { 'content-type': 'application/json', ...(token === undefined ? {} : { 'x-tidegate-token': token }) };
    this._secure = secure;
    this._connectMs = connectMs;
    this._restMs = 0;
    this._restsUntil = 0;
    this._failedAt = -Infinity;
  }

  /** @param {number} nowMs */
  rests(nowMs) {
    return nowMs < this._restsUntil;
  }

  /**
   * It failed: leave it alone for a while, longer each time. What was asked before it last failed says nothing new.
   *
   * @param {number} askedMs @param {number} nowMs
   */
  failed(askedMs, nowMs) {
    if (askedMs <= this._failedAt) return;
    this._failedAt = nowMs;
    this._restMs = Math.min(LONGEST_REST_MS, this._restMs * 2 || FIRST_REST_MS);
    this._restsUntil = nowMs + this._restMs;
  }

  /** It answered. */
  answered() {
    this._restMs = this._restsUntil = 0;
  }

  /**
   * Post and call back once: with the answer, or with why there is none (`NotSentError`: it never left).
   *
   * @param {string} path
   * @param {string} body
   * @param {(error: Error | undefined, answered?: Answered) => void} done
   * @returns {() => void} gives up: closes the connection, since its answer may still come
   */
  post(path, body, done) {
    let told = false;
    let sent = false;
    /** @param {Error | undefined} error @param {Answered} [answered] */
    const tell = (error, answered) => {
      if (told) return;
      told = true;
      done(error, answered);
    };
    const headers = { ...this._headers, 'content-length': Buffer.byteLength(body) };
    const agent = path === CHECK_BATCH ? this._lane : this._other;
    const request = this._request({ ...this._options, path: this._path + path, agent, headers });
    request.on('socket', (socket) => {
      if (!socket.connecting) {
        sent = true;
        return;
      }
      // Over TLS nothing leaves before the handshake is done.
      const giveUp = () => sent || request.destroy(new Error('no connection in time'));
      // Looked at after what the network has brought meanwhile: it may be this process that was late.
      const late = setTimeout(() => setImmediate(giveUp), this._connectMs);
      socket.once('close', () => clearTimeout(late)).once(this._secure ? 'secureConnect' : 'connect', () => {
        clearTimeout(late);
        sent = true;
      });
    });
    request.on('error', (error) => tell(sent ? error : new NotSentError(error.message)));
    request.on('response', (response) => {
      /** @type {Buffer[]} */
      const chunks = [];
      let size = 0;
      response.on('data', (chunk) => {
        size += chunk.length;
        if (size > MOST_ANSWER_BYTES) {
          request.destroy();
          tell(new Error('the answer is too long'));
        } else chunks.push(chunk);
      });
      response.on('error', (error) => tell(error));
      response.on('aborted', () => tell(new Error('the answer broke off')));
      response.on('end', () => {
        const status = response.statusCode ?? 0;
        let answer;
        try {
          answer = JSON.parse(Buffer.concat(chunks).toString());
        } catch {
          return tell(new Error(status === 200 ? 'the answer is not JSON' : `the node answered ${status}`));
        }
        tell(undefined, { origin: this.url, status, body: answer });
      });
    });
    request.end(body);
    return () => {
      request.destroy();
      tell(new Error('given up'));
    };
  }

  close() {
    this._lane.destroy();
    this._other.destroy();
  }
}

/** Nodes of one region, asked in turn. */
class Nodes {
  /**
   * @param {string[]} urls
   * @param {{ token?: string, tls?: import('node:https').AgentOptions, maxSockets: number, connectMs: number }} options
   */
  constructor(urls, options) {
    this._nodes = urls.map((url) => new Node(url, options));
    this._next = 0;
  }

  /** Whether any node may be asked. @param {number} nowMs */
  someAwake(nowMs) {
    return this._nodes.some((node) => !node.rests(nowMs));
  }

  /**
   * Post to the next node that does not rest, or to the one at `origin`; what never left goes on to the one after. What was sent
   * is never repeated: it may have counted.
   *
   * @param {string} path
   * @param {string} body
   * @param {(error: Error | undefined, answered?: Answered) => void} done
   * @param {string} [origin]
   * @returns {() => void} gives up
   */
  post(path, body, done, origin) {
    const awake = this._awake(origin);
    let giveUp = () => {};
    let givenUp = false;
    const attempt = () => {
      const node = awake.shift();
      if (node === undefined) return done(new Error('no node can be reached'));
      const askedMs = performance.now();
      giveUp = node.post(path, body, (unanswered, answered) => {
        const error = unanswered ?? faultOf(path, /** @type {Answered} */ (answered));
        // Some nodes let anybody check, and lend to gateways only.
        if (error === undefined || (error instanceof UnauthorizedError && path !== CHECK_BATCH)) node.answered();
        else node.failed(askedMs, performance.now());
        if (error instanceof NotSentError && !givenUp) attempt();
        else done(error, answered);
      });
    };
    attempt();
    return () => {
      givenUp = true;
      giveUp();
    };
  }

  /** Who may be asked, in turn. @param {string | undefined} origin */
  _awake(origin) {
    if (origin !== undefined) return this._nodes.filter((node) => node.url === origin);
    const nowMs = performance.now();
    const order = this._nodes.map((_, at) => this._nodes[(this._next + at) % this._nodes.length]);
    this._next = (this._next + 1) % this._nodes.length;
    return order.filter((node) => !node.rests(nowMs));
  }

  close() {
    for (const node of this._nodes) node.close();
  }
}

/**
 * Why an answer does not count. Without its store a node lends nothing, and says so, but decides all the same; what it says of one
 * lease (that a name is unknown, say) is for who asked.
 *
 * @param {string} path @param {Answered} answered
 */
function faultOf(path, { origin, status, body }) {
  // An unknown API key is a 401 as well, with a decision.
  if (status === 401 && typeof body?.allowed !== 'boolean') {
    return new UnauthorizedError(`${new URL(origin).host}${path} answered 401: it wants a gateway token (option \`token\`) that it knows`);
  }
  // 403: without a token the node takes small batches only.
  const sound = path === CHECK_BATCH ? status === 200 || status === 403 : status < 500 || body?.error === 'store_unavailable';
  return sound ? undefined : new Error(`the node answered ${status}`);
}

module.exports = { CHECK_BATCH, Nodes };
