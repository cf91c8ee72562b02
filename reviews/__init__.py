"""Reviewers, rubrics, verdicts, and the policy that turns them and people's answers into decisions."""
