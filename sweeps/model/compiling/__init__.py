"""Compiled functions: libraries built ahead of time, ``torch.compile``, checks against plain PyTorch."""
