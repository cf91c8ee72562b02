"""Quality control: detectors, exact bounds, thresholds, verdicts and the report people read."""
