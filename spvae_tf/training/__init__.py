"""Training: a run from its configuration to its record. `data` prepares images, `configuration` holds the settings and
the two protocols, `streams` says which images a batch has, `trainer` is algorithm 1 with early stopping, `evaluation`
the test. `run` joins them: `Run` has a run's configuration, folder, model and data. `records`, `checkpoint` and
`provenance` are what is written down.
"""
