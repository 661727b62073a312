"""Run models and processes: one heavy package per module, imported inside the function that needs it."""
