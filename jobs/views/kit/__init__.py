"""What all drawings share: tables, terminal sheets, pages, and the colours of curves."""
