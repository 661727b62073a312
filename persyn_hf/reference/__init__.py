"""The reference of settings, made from the models that read a recipe: a JSON Schema, a page, what runs anew."""
