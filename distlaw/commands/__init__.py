"""Commands of ``distlaw``, one module a verb: parse, call, print."""
