"""Real servers, fakes and builders that the tests and ``tools/bench`` share. The product never imports it."""
