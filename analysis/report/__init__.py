"""The report on recorded runs: one module for each section of the page."""
