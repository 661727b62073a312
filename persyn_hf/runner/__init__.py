"""The place where stages meet the store: plan a recipe's steps, run what is not stored yet, publish what it made."""
