"""One module per stage; `persyn_hf.stage` says what a stage is."""
