"""Tables and figures over artifacts."""
