"""The verbs that compute and write: one file per verb."""
