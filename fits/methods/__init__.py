"""Methods of distillation compared by the compute or tokens they are worth.

May import every other room of ``fits`` but ``published``.
"""
