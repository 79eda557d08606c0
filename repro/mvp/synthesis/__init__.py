"""From a folder of videos to masked-prediction records, in two passes.

    pass 1   video -> pictures at 1 a second + embeddings     (films, embed, store, worker)
    pass 2   embeddings -> items -> records                   (items, records)

Only pass 1 decodes; its results are kept, so another kappa, N, K or l needs pass 2 alone. Sources:
mvp.md 1.2 for the order of the steps, all numbers are chosen.
"""
