"""Where stages meet the store: plan the steps of a recipe, run each that is not stored yet, publish what it made."""
