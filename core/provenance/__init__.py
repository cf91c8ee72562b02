"""Where everything came from: environment, content hashes, manifests, verification."""
