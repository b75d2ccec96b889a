"""From finished runs to tables, tests, figures and one page."""
