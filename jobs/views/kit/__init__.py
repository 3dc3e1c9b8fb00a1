"""What all drawings share: tables, terminal sheets and pages; colours are in attribution_core/display/colours.py."""
