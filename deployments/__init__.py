"""The local stack: server, work pools, workers, deployments, notifications; README.md is the guide."""
