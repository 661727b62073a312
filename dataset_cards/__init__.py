"""Card templates, one per artifact kind."""
