import type { AgentOptions } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** What a node is asked: see POST /v1/check. `client`, `endpoint`, `attributes` and a cost above 1 need a gateway token. */
export interface Check {
  api_key?: string;
  client?: string;
  ip?: string;
  method?: string;
  path?: string;
  endpoint?: string;
  cost?: number;
  attributes?: Record<string, string>;
}

/** Whether a request may pass, and why. The limit members are undefined when no limit applied or no node answered. */
export interface Decision {
  allowed: boolean;
  /** What to answer: 200, 429 over a limit, 401 or 403 refused, 503 when no node answered and the policy is closed. */
  status: number;
  /**
   * `node`: decided there; `lease`: out of a lease held here; `memory`: a denial remembered here; `policy`: no node answered, the
   * fail policy decided; `client`: refused without asking.
   */
  source: 'node' | 'lease' | 'memory' | 'policy' | 'client';
  client: string | undefined;
  policy: string | undefined;
  limit: number | undefined;
  windowS: number | undefined;
  remaining: number | undefined;
  resetAfterS: number | undefined;
  /** Undefined when allowed, or when the request can never pass. */
  retryAfterS: number | undefined;
  /** Decided without the store, or without a node. */
  degraded: boolean;
  requestId: string | undefined;
  error: string | undefined;
  /** Why it was denied, out of the closed set in docs/decisions-api.md. */
  cause: string | undefined;
  /** For the end user, as RFC 9457 has it; undefined when allowed. */
  problem: Record<string, unknown> | undefined;
}

export type HeaderStyle = 'both' | 'standard' | 'legacy';

export interface LimiterOptions {
  /** A node, or several of one region, asked in turn. */
  url: string | string[];
  /** The gateway token (`tgg_...`). */
  token?: string;
  /** Every check is answered within this time, come what may. Default 250. */
  timeoutMs?: number;
  /** What becomes of requests when no node answers in time: `open` (the default) lets them pass, `closed` answers 503. */
  failPolicy?: 'open' | 'closed';
  /** Most checks in one request to a node, 1 to 1000. Default 500. */
  maxBatch?: number;
  /** Hold small, short-lived allotments of what is asked often, and decide here; needs a gateway token, or a trusted network. Default false. */
  leases?: boolean;
  /** How long a lease may be spent, at most 10,000. Default 1,000. */
  leaseMs?: number;
  /** Checks asked at least so often, in units a second, get a lease. Default 5. */
  leaseAfterPerS?: number;
  /** Most units asked for at once. Default 10,000,000, the most that a node takes. */
  maxLeaseUnits?: number;
  /** Who was denied is denied again without asking, for as long as the answer said and at most so long; 0 always asks. Default 1,000. */
  rememberDenialsMs?: number;
  /** Most checks whose leases, demand and denials are kept. Default 10,000. */
  maxAccounts?: number;
  /** For `https` nodes: your CA, your client certificate. */
  tls?: AgentOptions;
  /** Called when a node did not answer rightly in time. Must not throw. */
  onError?: (error: Error) => void;
}

declare global {
  // Express's own place for what middleware adds to requests.
  namespace Express {
    interface Request {
      /** Set by the middleware. */
      tidegate?: Decision;
    }
  }
}

export interface Request extends IncomingMessage {
  ip?: string;
  originalUrl?: string;
  /** Set by the middleware. */
  tidegate?: Decision;
}
export type Response = ServerResponse;
export type Next = (error?: unknown) => void;

type Eventually<T> = T | Promise<T>;

/**
 * How a route is limited. Functions get the framework's own request: annotate it (`(req: express.Request) => ...`).
 */
export interface RateLimitOptions<Req = any, Res = any> extends Partial<LimiterOptions> {
  /** A limiter that several middlewares share; then the options of `LimiterOptions` are its own. */
  limiter?: Limiter;
  /** What `keyGenerator` returns: an API key (the default), an address, a client's name, or an attribute's value. */
  limitBy?: 'key' | 'ip' | 'client' | `attribute:${string}`;
  /** Who asks, a number as its digits; `undefined` is nobody known. Default: X-API-Key or Authorization: Bearer; for `ip` the request's address. */
  keyGenerator?: (request: Req, response: Res) => Eventually<string | number | bigint | null | undefined>;
  /** The whole check, instead of `limitBy`, `keyGenerator`, `endpoint`, `cost` and `attributes`. */
  identify?: (request: Req, response: Res) => Eventually<Check>;
  /** The endpoint's name in the control plane; default: found by method and path. */
  endpoint?: string | ((request: Req, response: Res) => Eventually<string>);
  /** Default 1, times the endpoint's own. */
  cost?: number | ((request: Req, response: Res) => Eventually<number>);
  attributes?: (request: Req, response: Res) => Eventually<Record<string, string>>;
  /** Requests that are not limited. */
  skip?: (request: Req, response: Res) => Eventually<boolean>;
  /** Answers what may not pass. Default: `decision.status` with `decision.problem`. */
  handler?: (request: Req, response: Res, next: Next, decision: Decision) => unknown;
  /** `standard`: RateLimit and RateLimit-Policy; `legacy`: X-RateLimit-*; `both` is the default. */
  headers?: HeaderStyle;
}

export interface RateLimitMiddleware {
  (request: any, response: any, next: Next): void;
  readonly limiter: Limiter;
  /** Returns leases and closes the connections to nodes. */
  close(): Promise<void>;
}

/** No node answered rightly in time; given to `onError`. */
export class UnavailableError extends Error {}

/** A node wants a gateway token, and was sent none that it knows; given to `onError`, and warned of once. */
export class UnauthorizedError extends UnavailableError {}

/** Decides by leases held here, or asks nodes, many checks at once. */
export class Limiter {
  constructor(options: LimiterOptions);
  /** Never rejects: without a node the fail policy decides. */
  check(check: Check): Promise<Decision>;
  /** The same with a callback, which may be called at once. */
  ask(check: Check, answer: (decision: Decision) => void): void;
  /** Returns leases and closes connections, within a few times `timeoutMs`; never rejects. */
  close(): Promise<void>;
  /** What the fail policy says where the application, and no end user, asked what no node can decide on; warned of once. */
  mistaken(decision: Decision): Decision;
}

export function rateLimit<Req = any, Res = any>(options: RateLimitOptions<Req, Res>): RateLimitMiddleware;
