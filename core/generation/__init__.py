"""From prompts to accepted pairs: candidates, de-duplication, the journal, the round loop."""
