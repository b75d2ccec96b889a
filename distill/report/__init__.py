"""What report.py is made of: runs -> rows -> table, with significance, comparison, figures and the page around it."""
