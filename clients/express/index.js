'use strict';

const { rateLimit } = require('./lib/middleware.js');
const { UnauthorizedError, UnavailableError } = require('./lib/errors.js');
const { Limiter } = require('./lib/limiter.js');

module.exports = { rateLimit, Limiter, UnavailableError, UnauthorizedError };
