"""Whether the attributions of a run are faithful: do the words they name first matter first to the model?"""
