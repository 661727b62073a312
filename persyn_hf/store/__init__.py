"""The artifact store: a Hugging Face cache directory with manifests, tags and digests."""
