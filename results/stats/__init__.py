"""Statistics of runs, as pure functions; every random draw takes a seed.

| question                                   | function                                        |
|--------------------------------------------|-------------------------------------------------|
| E printed number, same weights re-scored   | `rerun_variance`, `independent_delta`, `Delta`    |
| T printed number, trained again            | `training_delta`, `prediction_interval`         |
| C method against baseline                  | `seed_interval`, `clustered_interval`           |
| R, and two given checkpoints               | `mcnemar_exact`, `sign_flip_p`                  |
| many cells                                 | `holm`, `benjamini_hochberg`, `iqm_interval`    |

Scores and differences are fractions (0.01 is one percentage point); levels are probabilities.
"""

from results.stats.intervals import (
    Clusters,
    Delta,
    Interval,
    Values,
    clustered_interval,
    t_quantile,
    wilson,
)
from results.stats.multiple import benjamini_hochberg, holm, intersection_union
from results.stats.overall import iqm, iqm_interval
from results.stats.pairs import Side, mcnemar_exact, sign_flip_p
from results.stats.reruns import (
    discordance,
    flips,
    independent_delta,
    independent_variance,
    rerun_variance,
    variance_of_flips,
)
from results.stats.seeds import (
    Spread,
    pooled_spread,
    prediction_interval,
    seed_interval,
    seed_p,
    seeds_needed,
    training_delta,
)

__all__ = [
    "Clusters",
    "Delta",
    "Interval",
    "Side",
    "Spread",
    "Values",
    "benjamini_hochberg",
    "clustered_interval",
    "discordance",
    "flips",
    "holm",
    "independent_delta",
    "independent_variance",
    "intersection_union",
    "iqm",
    "iqm_interval",
    "mcnemar_exact",
    "pooled_spread",
    "prediction_interval",
    "rerun_variance",
    "seed_interval",
    "seed_p",
    "seeds_needed",
    "sign_flip_p",
    "t_quantile",
    "training_delta",
    "variance_of_flips",
    "wilson",
]
