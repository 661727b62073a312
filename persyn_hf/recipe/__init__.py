"""What a recipe may say, and what its parts mean to the rest of persyn."""
