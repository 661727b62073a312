"""Pure functions over plain values, numpy arrays and torch tensors: no files, clock, print, environment."""
