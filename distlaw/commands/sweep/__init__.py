"""Commands of ``distlaw sweep``, one module for verbs that belong together."""
