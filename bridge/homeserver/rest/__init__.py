"""REST + JSON for homeservers (R0-13): a hidden node behind an HTTP service that keeps nothing itself."""
