"""``python -m jobs``: the program where its console script is not installed, as on a cluster it was sent to."""

from jobs.cli.main import main

main()
