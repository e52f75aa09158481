"""Files with which other people's schedulers run a sweep: Slurm, Kubernetes, SkyPilot, clouds.

All are written from one :class:`~sweeps.launch.launch.Launch`; what runs on every node is
``distlaw sweep run``, and the store is all that nodes share.
"""
