"""All drawing: terminals, pages, figures and the report."""
