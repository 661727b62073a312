"""What `persyn plan` says: the steps of a recipe, and what they will ask for and cost."""
