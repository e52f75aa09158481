"""Design of experiments: which runs to train next for a question, and what they would tell.

``next_runs`` is the entry: a table and candidates become a proposal. ``belief`` holds what the runs say,
``decisions`` what is asked, ``v_optimal`` picks, ``regret`` says when to stop.

May import ``fits.estimation`` and ``fits.table``.
"""
