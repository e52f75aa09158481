"""``python -m distlaw``, for where the command is not installed: inside a submitted job."""

from distlaw.cli import main

main()
