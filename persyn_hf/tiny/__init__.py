"""The tiny world: questions, response styles, and small models trained from scratch, all on a CPU."""
