"""Collection of the logs that training tools leave, into one table of runs.

:mod:`fits.logs.formats` holds one reader for each format; each turns a file into
:class:`~fits.logs.run_log.RunLog` objects. :mod:`fits.logs.discovery` finds and recognizes the files of a
directory by their content, :mod:`fits.logs.runs_on_disk` groups them to runs, :mod:`fits.logs.metric_names`
knows what tools call losses, tokens and sizes, and :mod:`fits.logs.rows` reduces a run to rows of the table.
"""
