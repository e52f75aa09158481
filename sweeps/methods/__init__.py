"""Named methods, one ``<name>.yaml`` each, as in ``methods: [gkd, {use: gkd, beta: 0.1}]``.

:mod:`sweeps.spec.method` reads them.
"""
