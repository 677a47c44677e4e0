import tidegate from './index.js';

export const { rateLimit, Limiter, UnavailableError } = tidegate;
