'use strict';

/** No node answered rightly in time; `onError` gets it. */
class UnavailableError extends Error {}

/** A node wants a gateway token, and was sent none that it knows. */
class UnauthorizedError extends UnavailableError {}

module.exports = { UnavailableError, UnauthorizedError };
