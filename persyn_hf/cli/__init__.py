"""The command line `persyn`, one module per group of commands."""
