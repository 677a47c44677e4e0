'use strict';

const { rateLimit } = require('./lib/middleware.js');
const { Limiter, UnavailableError } = require('./lib/limiter.js');

module.exports = { rateLimit, Limiter, UnavailableError };
