"""Teachers behind a provider's batch API: `engine` sends and collects, `notes` remember, a service per form of API."""
