"""Model versions: job spec, files and manifest, registry, deployments, verdict."""
