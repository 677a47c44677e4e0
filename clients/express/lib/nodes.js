'use strict';

const http = require('node:http');
const https = require('node:https');

const MOST_ANSWER_BYTES = 4 * 1024 * 1024;
const FIRST_REST_MS = 100;
const LONGEST_REST_MS = 5_000;
// Shorter than a node's own 75 s: a connection is not used in the moment in which the node closes it.
const IDLE_MS = 30_000;

/** The request never left: it may go to another node. */
class NotSentError extends Error {}

/** One node: its kept connections, and how long it rests after it failed. */
class Node {
  /**
   * @param {string} url
   * @param {{ token?: string, tls?: import('node:https').AgentOptions, maxSockets: number, connectMs: number }} options
   */
  constructor(url, { token, tls, maxSockets, connectMs }) {
    const at = new URL(url);
    if (at.protocol !== 'http:' && at.protocol !== 'https:') throw new TypeError(`url: ${url} is not http(s)://host:port`);
    const secure = at.protocol === 'https:';
    const kept = { keepAlive: true, maxSockets, timeout: IDLE_MS, noDelay: true };
    this._request = secure ? https.request : http.request;
    this._agent = secure ? new https.Agent({ ...kept, ...tls }) : new http.Agent(kept);
    this._options = {
      agent: this._agent,
      host: at.hostname.replace(/^\[|\]$/g, ''),
      port: at.port || (secure ? 443 : 80),
      path: `${at.pathname.replace(/\/$/, '')}/v1/check/batch`,
      method: 'POST',
    };
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
   * Post a batch and call back once: with the decoded body, or with why there is none (`NotSentError`: it never left).
   *
   * @param {string} body
   * @param {(error: Error | undefined, answer?: any) => void} done
   * @returns {() => void} gives up: closes the connection, since its answer may still come
   */
  post(body, done) {
    let told = false;
    let sent = false;
    /** @param {Error | undefined} error @param {any} [answer] */
    const tell = (error, answer) => {
      if (told) return;
      told = true;
      done(error, answer);
    };
    const headers = { ...this._headers, 'content-length': Buffer.byteLength(body) };
    const request = this._request({ ...this._options, headers });
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
        if (response.statusCode !== 200) return tell(new Error(`the node answered ${response.statusCode}`));
        try {
          tell(undefined, JSON.parse(Buffer.concat(chunks).toString()));
        } catch {
          tell(new Error('the answer is not JSON'));
        }
      });
    });
    request.end(body);
    return () => {
      request.destroy();
      tell(new Error('given up'));
    };
  }

  close() {
    this._agent.destroy();
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
   * Post to the next node that does not rest; what never left goes on to the one after. What was sent is never repeated:
   * it may have counted.
   *
   * @param {string} body
   * @param {(error: Error | undefined, answer?: any) => void} done
   * @returns {() => void} gives up
   */
  post(body, done) {
    const nowMs = Date.now();
    const order = this._nodes.map((_, at) => this._nodes[(this._next + at) % this._nodes.length]);
    this._next = (this._next + 1) % this._nodes.length;
    const awake = order.filter((node) => !node.rests(nowMs));
    let giveUp = () => {};
    let givenUp = false;
    const attempt = () => {
      const node = awake.shift();
      if (node === undefined) return done(new Error('no node can be reached'));
      const askedMs = Date.now();
      giveUp = node.post(body, (error, answer) => {
        if (error === undefined) node.answered();
        else node.failed(askedMs, Date.now());
        if (error instanceof NotSentError && !givenUp) attempt();
        else done(error, answer);
      });
    };
    attempt();
    return () => {
      givenUp = true;
      giveUp();
    };
  }

  close() {
    for (const node of this._nodes) node.close();
  }
}

module.exports = { Nodes };
