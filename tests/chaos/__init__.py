"""Chaos: a run is disturbed at a seeded random moment, and its output must be that of an undisturbed one.

``python -m tests.chaos --runs 50 --seed 1`` does so and prints a table. One room a purpose:

| room | what lives there |
|---|---|
| ``job`` | the input, the model, the job file, and the driver as a process of its own |
| ``worker`` | the worker of these runs: the real one, which takes its time, fails on command and says what it does |
| ``cluster`` | three raylets on one machine, in a process of their own |
| ``store`` | the S3 server as something that stops, dies and comes back; a proxy that cuts a PUT in the middle |
| ``cases`` | what is done to a run, when, and how it may end |
| ``comparison`` | whether a run directory holds what it must and nothing else |
| ``report`` | the table |
"""
