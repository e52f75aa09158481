"""The calculator page and the HTTP API beneath it; needs the extra ``serve``.

``requests.py`` is what can be asked, ``answers.py`` what is answered, ``workers.py`` and ``limits.py`` keep
one asker from starving the others, ``api.py`` puts them together, ``servers.py`` runs that in several
processes, ``static/`` is the page.
"""
