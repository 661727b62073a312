"""The stages, one module each; `persyn_hf.stage` says what a stage is."""
