"""Drawing of pairs: terminals, HTML, figures and sheets."""
