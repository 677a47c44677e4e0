// Not run: `npm run types` reads it, as a user's compiler would.
import express from 'express';
import { Limiter, UnauthorizedError, rateLimit, type Decision } from '../index.js';

const app = express();
const limiter = new Limiter({ url: ['http://127.0.0.1:8101'], token: 'tgg_x', timeoutMs: 100, failPolicy: 'closed' });
app.use(rateLimit({ limiter }));
app.use(rateLimit({ url: 'http://127.0.0.1:8101', headers: 'standard' }));
const leasing = rateLimit({
  url: 'http://127.0.0.1:8101', leases: true, leaseMs: 500, leaseAfterPerS: 10, maxLeaseUnits: 1_000, rememberDenialsMs: 0,
  maxAccounts: 100, onError: (error) => error instanceof UnauthorizedError && process.exit(1),
});
app.use(leasing);
process.once('SIGTERM', () => void leasing.close().then(() => process.exit()));
app.get(
  '/tenants/:tenant',
  rateLimit<express.Request, express.Response>({
    limiter,
    limitBy: 'attribute:tenant',
    keyGenerator: (req) => req.params.tenant,
    skip: async (req) => req.method === 'OPTIONS',
    cost: (req) => Number(req.query.size ?? 1),
    attributes: async (req) => ({ tenant: req.params.tenant }),
    handler: (req, res, next, decision) => {
      res.status(decision.status).json(decision.problem);
    },
  }),
  (req, res) => {
    const decision: Decision | undefined = req.tidegate;
    res.json({ left: decision?.remaining, again: req.tidegate?.retryAfterS?.toFixed(1) });
  },
);

// @ts-expect-error: not a policy
rateLimit({ url: 'http://127.0.0.1:8101', failPolicy: 'sometimes' });
// @ts-expect-error: an attribute needs its name after the colon's type
rateLimit({ url: 'http://127.0.0.1:8101', limitBy: 'tenant' });
// @ts-expect-error: not a length of time
rateLimit({ url: 'http://127.0.0.1:8101', leases: true, leaseMs: '1s' });
// @ts-expect-error: a limiter names its nodes
new Limiter({});
void limiter.check({ api_key: 'k', cost: 0 }).then((decision) => decision.retryAfterS?.toFixed());
void limiter.check({ api_key: 'k' }).then(({ source }) => source === 'lease' || source === 'memory');
