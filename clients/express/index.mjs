import tidegate from './index.js';

export const { rateLimit, Limiter, UnavailableError, UnauthorizedError } = tidegate;
