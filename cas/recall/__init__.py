"""Finding things: queries over what a workspace holds, and context packed for a model.

Floor 7. Everything here is a projection of the journal: it can be thrown away and made again.
"""
