"""Commands of ``distlaw``, one module a verb: parse, call, print; ``planner`` asks, ``sweep`` trains."""
