"""How statistics over a corpus are drawn."""
